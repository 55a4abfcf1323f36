What a node says of itself, self(4).
  $ cd $N/self; ls
  addrs
  ctl
  error
  event
  id
  limits
  log
  metrics
  name
  roles
  status
  $ cat name id
  bob
  [bob]
  $ head -n1 status; grep -c . limits metrics | cut -d: -f1
  state running
  limits
  metrics
  $ grep -c '^sessions' metrics
  3
  $ grep rss metrics
  rss_kib [..]
  rss_peak_kib [..]

A snapshot has its true size, so that whoever trusts stat reads all of it.
  $ test $(stat -c %s id) = $(wc -c < id); cp id $W/id; cmp id $W/id
  $ git hash-object --no-filters id | cmp - - && tar -cf - id | tar -xOf -
  [bob]

Written.
  $ echo log debug > ctl; grep '^log' status
  log debug
  $ echo log loud > ctl
  [..]
  [1]
  $ cat error
  "loud" is no level; write "log error|warn|info|debug"

Ann's name is hers; her self is not shown until it is granted.
  $ cat $A/self/name
  ann
  $ echo dial $ANN ann > $N/peers/ctl; ls $N/n/ann
  $ echo grant $(cat id) /self > $A/export/ctl; cat $N/n/ann/self/id
  [ann]
  $ cat $N/n/ann/self/status
  [..]
  [1]
