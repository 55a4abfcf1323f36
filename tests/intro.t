The session of intro(1): Bob's name space is mounted at $N; Ann's node is another process, dialled at $ANN. $A is Ann's
own mount, for what she types.

Who am I, and what is there?
  $ ls $N
  cpu
  error
  event
  export
  keys
  n
  ns
  peers
  self
  $ cat $N/self/id
  [bob]
  $ cat $N/self/addrs
  /ip4/127.0.0.1/tcp/[..]/p2p/[bob]

A neighbour is dialled by writing its address. What she did not grant cannot be seen.
  $ echo dial $ANN ann > $N/peers/ctl; cat $N/peers/ann/id
  [ann]
  $ cat $N/peers/ann/status
  connected [..]/p2p/[ann]
  $ ls $N/n
  ann
  $ ls $N/n/ann

Ann grants Bob her processor, and a directory to look at.
  $ echo name $(cat $N/self/id) bob > $A/peers/ctl; echo grant bob /cpu > $A/export/ctl
  $ mkdir -p $W/../hers; echo welcome > $W/../hers/note; k=$(cat $A/export/clone)
  $ echo bind $(readlink -f $W/../hers) /notes > $A/export/$k/ctl; echo grant bob ro > $A/export/$k/ctl
  $ ls $N/n/ann; cat $N/n/ann/notes/note
  cpu
  notes
  welcome
  $ echo mine > $N/n/ann/notes/note
  [..]
  [2]
  $ cat $W/../hers/note
  welcome

Bound behind the own one, her processor is Bob's too.
  $ echo bind -a /n/ann/cpu /cpu > $N/ns; tail -n1 $N/ns
  bind -a /n/ann/cpu /cpu
  $ ls $N/cpu
  ann
  bob
  $ head -n2 $N/cpu/ann/info; cd $N/cpu/ann
  node ann
  arch [..]

A directory of Bob's for Ann's node alone, to read only; and another, to write too.
  $ mkdir $W/in $W/out; cp $PROGRAMS/*.wasm $W/in; printf 'one\ntwo two\nthree\n' > $W/in/book
  $ r=$(cat $N/export/clone); printf 'bind %s /p\nro\nto ann\n' $W/in > $N/export/$r/ctl; IN=$(cat $N/export/$r/cap)
  $ w=$(cat $N/export/clone); printf 'bind %s /o\nrw\nto ann\n' $W/out > $N/export/$w/ctl; OUT=$(cat $N/export/$w/cap)
  $ echo $IN
  ipos:[bob]/[..]#[..]

A program of Bob's, on Ann's machine, over Bob's files.
  $ n=$(cat clone); echo mount $IN /p > $n/ns
  $ echo exec /p/wc.wasm -l /p/book > $n/ctl; cat $n/stdout; cat $n/wait
  3 /p/book
  exited 0 [..]
  $ cat $n/status; grep fuel $n/usage; rmdir $n
  exited 0
  fuel [..]

A filter: its input is what is written to stdin.
  $ n=$(cat clone); echo mount $IN /p > $n/ns; echo exec /p/upper.wasm > $n/ctl
  $ cat $W/in/book > $n/stdin; cat $n/stdout; cat $n/wait; rmdir $n
  ONE
  TWO TWO
  THREE
  exited 0 [..]

A program that writes into Bob's directory.
  $ n=$(cat clone); printf 'mount %s /p\nmount %s /o\n' $IN $OUT > $n/ns
  $ printf 'stdout /o/copy\nexec /p/upper.wasm\n' > $n/ctl; echo to a file > $n/stdin; cat $n/wait; rmdir $n
  exited 0 [..]
  $ cat $W/out/copy
  TO A FILE

What was lent to read is not written, wherever the program runs.
  $ n=$(cat clone); echo mount $IN /p > $n/ns; echo exec /p/tee.wasm /p/book overwritten > $n/ctl; cut -d' ' -f1,2 $n/wait
  exited 1
  $ grep -c -i read-only $n/stderr; rmdir $n; wc -l < $W/in/book; ls $W/in | grep -c new
  1
  3
  0
  [1]

A job that does not end by itself is killed.
  $ n=$(cat clone); echo mount $IN /p > $n/ns; echo exec /p/spin.wasm > $n/ctl; cat $n/status
  running 0
  $ echo kill > $n/ctl; cat $n/wait; rmdir $n
  killed [..]

A wrong word is refused with an error number; the text is beside it.
  $ n=$(cat clone); echo exce /p/wc.wasm > $n/ctl
  [..]
  [1]
  $ cat $n/error; rmdir $n
  [..]exce[..]

What was lent is taken back by removing it.
  $ cd $W; rmdir $N/export/$r $N/export/$w; ls $N/export
  clone
  ctl
  error
  grants
