The name space, ns(4) and namespace(6): read as text, changed by writing lines.
  $ cd $N; cat ns
  bind '#self' /self
  bind '#keys' /keys
  bind '#peers' /peers
  bind '#n' /n
  bind '#export' /export
  bind '#cpu' /cpu
  $ ls
  cpu
  error
  event
  export
  keys
  n
  ns
  peers
  self
  $ echo bind /keys /agent > ns; ls agent
  ctl
  error
  list
  sign
  verify
  $ tail -n1 ns
  bind /keys /agent

What is bound is the same file: equal inode numbers, and each place is a directory of its own.
  $ test agent/list -ef keys/list; cd agent; pwd; cd ..; ls -d agent; cd $N
  [..]/agent
  agent

A union shows what all its members have, the first of equal names.
  $ echo bind -a /peers /agent > ns; ls agent
  ctl
  error
  event
  list
  near
  sign
  verify
  $ test agent/ctl -ef keys/ctl
  $ echo unmount /keys /agent > ns; ls agent
  ctl
  error
  event
  near
  $ echo unmount /agent > ns; tail -n1 ns
  bind '#cpu' /cpu

All lines of one write take effect, or none; the text of a refusal is in error.
  $ printf 'bind /keys /a\nbind /no/such /b\n' > ns
  [..]
  [1]
  $ cat error; ls -d a
  ns line 2: [..]
  ls: cannot access 'a': No such file or directory
  [2]
  $ echo bind /self /self/id > ns
  [..]
  [1]
  $ cat error
  ns line 1: [..]
  $ echo bond /keys /a > ns
  [..]
  [1]
  $ cat error
  ns line 1: "bond" is no name space command; [..]

A cycle is refused, unless it is asked for.
  $ echo bind / /self/x > ns
  [..]
  [1]

The verbs of ipos(1) write the same lines, with or without a mount.
  $ ipos bind -a /keys /self; ipos ns | tail -n1
  bind -a /keys /self
  $ ipos unmount /keys /self; ipos ns | tail -n1
  bind '#cpu' /cpu
  $ ipos bind /nothing /k
  ipos: /ns: ns line 1: [..]
  [1]

$user, $host and $peer are this user, machine and node.
  $ echo 'bind /keys /$peer' > ns; ls -d bob; echo unmount /bob > ns
  bob
