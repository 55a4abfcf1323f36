What others may use, export(4): grants, and capabilities.
  $ echo dial $ANN ann > $N/peers/ctl; BOB=$(cat $N/self/id); mkdir $W/d; echo text > $W/d/file; cd $A/export; ls
  clone
  ctl
  error
  grants

Nothing is shown that was not granted. A grant is to a peer, by name or id, or to any.
  $ ls $N/n/ann
  $ echo grant $BOB /cpu > ctl; ls $N/n/ann; cut -f1-3 grants
  cpu
  [bob]	/cpu	[..]
  $ echo revoke $BOB /cpu > ctl; ls $N/n/ann; cat grants
  $ echo grant nobody /cpu > ctl
  [..]
  [1]
  $ cat error
  [..]nobody[..]

A directory of the machine, to read only or to write.
  $ m=$(cat clone); ls $m
  cap
  ctl
  error
  grants
  status
  $ printf 'bind %s /d\ngrant %s ro\n' $W/d $BOB > $m/ctl; ls -l $N/n/ann/d | cut -c1-10
  total [..]
  -r--r--r--
  $ echo no > $N/n/ann/d/file
  [..]
  [2]
  $ rm -f $N/n/ann/d/file
  [..]
  [1]
  $ echo grant $BOB rw > $m/ctl; echo yes > $N/n/ann/d/new; cat $W/d/new
  yes
  $ mkdir $N/n/ann/d/sub && mv $N/n/ann/d/new $N/n/ann/d/sub/moved && ls $W/d $W/d/sub
  [..]/d:
  file
  sub
  [..]
  [..]/d/sub:
  moved

No name leads out of it.
  $ ln -s /etc $W/d/out; cat $N/n/ann/d/out/passwd > /dev/null && readlink $N/n/ann/d/out
  /etc
  $ ls $N/n/ann/d/../../ann
  d

What is shown can be limited in size.
  $ mkdir $W/e; s=$(cat clone); printf 'bind %s /e\nmax 1K\ngrant %s rw\n' $W/e $BOB > $s/ctl
  $ head -c 5000 /dev/zero > $N/n/ann/e/big
  [..]
  [1]
  $ test $(stat -c %s $W/e/big) -le 1024 && head -c 500 /dev/zero > $N/n/ann/e/big && rmdir $s

A capability is a line of text: whoever it is for may mount it.
  $ c=$(cat clone); printf 'bind %s /d\nro\nto %s\nuses 2\nttl 600\n' $W/d $BOB > $c/ctl; cat $c/cap
  ipos:[ann]/[..]#[..]
  $ grep -E '^(to|uses|access)' $c/status
  access ro
  to [bob]
  uses_left 2
  $ echo mount $(cat $c/cap) /lent > $N/ns; cat $N/lent/file
  text
  $ tail -n1 $N/ns
  mount 'ipos:[ann]/[..]#*' /lent

Removed, it is gone for whoever has it open too.
  $ exec 5<$N/lent/file; rmdir $c; cat <&5
  [..]
  [1]
  $ exec 5<&-; ls $N/lent
  [..]
  [2]
  $ echo unmount /lent > $N/ns; rmdir $m; ls $N/n/ann

The state directory and the mount are never shown, whatever path leads there.
  $ c=$(cat clone); echo bind $IPOS_HOME/../ann /h > $c/ctl
  [..]
  [1]
  $ cat $c/error; rmdir $c
  [..]
