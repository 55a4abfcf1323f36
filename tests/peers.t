The neighbours, peers(4), and their trees under n/.
  $ cd $N/peers; ls
  ctl
  error
  event
  near
  $ ls $N/n

An address is dialled by writing it; the name given then is the neighbour's here.
  $ echo dial $ANN ann > ctl; ls -d ann; ls ann
  ann
  addrs
  ctl
  error
  event
  id
  latency
  status
  $ cat ann/id; test "$(cat ann/addrs)" = $ANN
  [ann]
  $ cut -d' ' -f1,3 ann/status
  connected dialled
  $ ls $N/n; grep -c . near
  ann
  1

It can be renamed, and hung up on; walking into it dials again.
  $ echo name ann nina > ctl; ls $N/n
  nina
  $ echo hangup nina > ctl; cut -d' ' -f1 nina/status
  [..]
  $ ls $N/n/nina; cut -d' ' -f1 nina/status
  connected

Refusals.
  $ echo dial nowhere x > ctl
  [..]
  [1]
  $ cat error
  [..]nowhere[..]
  $ echo dail $ANN > ctl
  [..]
  [1]
  $ cat error
  [..]dail[..]
  $ echo dial $(echo $ANN | sed 's,/p2p/.*,,')/p2p/$(cat $N/self/id) me > ctl
  [..]
  [1]
  $ echo dial /ip4/127.0.0.1/tcp/1/p2p/$(cat nina/id | sed 's/....$/aaaa/') x > ctl
  [..]
  [1]
  $ ls $N/n/nobody
  [..]
  [2]

ipos(1) imports a tree of hers, or all she shows.
  $ echo grant $(cat $N/self/id) /cpu > $A/export/ctl; ipos import nina:cpu /hers; ls $N/hers; ipos unmount /hers
  ann
  $ ipos import nina; ls $N/nina; ipos unmount /nina
  cpu
  $ ipos import :cpu 2>&1 | head -n1
  error: [..]it begins with no node; write NODE:TREE, as ann:cpu

A node that does not answer is an error in time, not a hang.
  $ echo forget nina > ctl; ls $N/n
