Jobs, cpu(4). A machine's own processor stands in its own name space.
  $ cd $N/cpu/bob; cp $PROGRAMS/*.wasm $W; m=$(cat $N/export/clone); printf 'bind %s /w\nrw\n' $W > $N/export/$m/ctl
  $ CAP=$(cat $N/export/$m/cap); ls
  clone
  error
  info
  ps
  $ grep -E '^(node|kinds|cores)' info
  node bob
  kinds wasm
  cores [..]

Opening clone makes a job; a job runs what exec names, once.
  $ n=$(cat clone); cat $n/status; ls $n
  new 0
  args
  ctl
  env
  error
  lease
  ns
  status
  stderr
  stdin
  stdout
  usage
  wait
  $ cat $n/ns
  bind -c '#tmp' /tmp
  bind '#dev' /dev
  $ echo mount $CAP /w > $n/ns; tail -n1 $n/ns
  mount 'ipos:[bob]/[..]#*' /w
  $ echo exec /w/echo.wasm hello "'two  words'" > $n/ctl; cat $n/stdout; cat $n/wait
  hello two  words
  exited 0 [..]
  $ cat $n/wait; cut -f1-4 ps
  exited 0 [..]
  [..]	exited	wasm	[..]
  $ echo exec /w/echo.wasm again > $n/ctl
  [..]
  [1]
  $ cat $n/error; rmdir $n; cat ps
  [..]

The exit status, and what the shell can do with it.
  $ n=$(cat clone); echo mount $CAP /w > $n/ns; echo exec /w/exit.wasm 7 > $n/ctl; read word code rest < $n/wait; echo $word $code
  exited 7
  $ rmdir $n

The same without a program of the shell's but itself.
  $ exec 3<>clone; read n <&3; echo mount $CAP /w > $n/ns; echo exec /w/true.wasm >&3; read w c rest < $n/wait; echo $w $c; exec 3>&-
  exited 0
  $ rmdir $n

Arguments one a line, and the environment, which is empty but for what is written.
  $ n=$(cat clone); printf '/w/echo.wasm\na  b\nc\n' > $n/args; echo mount $CAP /w > $n/ns; echo start > $n/ctl; cat $n/stdout; rmdir $n
  a  b c

Limits: fuel, time, memory, output.
  $ run() { n=$(cat clone); echo mount $CAP /w > $n/ns; printf "$1\nexec $2\n" > $n/ctl; cut -d' ' -f1 $n/wait; rmdir $n; }
  $ run 'limit fuel 100000' /w/spin.wasm; run 'limit wall 1' /w/spin.wasm
  fuel
  wall
  $ run 'limit mem 4M' /w/hog.wasm; run 'limit spool 10K' /w/flood.wasm
  mem
  outlimit

Frozen, thawed, interrupted.
  $ n=$(cat clone); echo mount $CAP /w > $n/ns; echo exec /w/spin.wasm > $n/ctl; echo stop > $n/ctl; cat $n/status
  stopped 0
  $ echo cont > $n/ctl; cat $n/status; echo note interrupt > $n/ctl; cut -d' ' -f1,2 $n/wait; rmdir $n
  running 0
  signal 2

A job's scratch space is its own and goes with it; nothing of the machine is in its tree.
  $ n=$(cat clone); echo mount $CAP /w > $n/ns; echo exec /w/files.wasm /tmp > $n/ctl; cat $n/stdout $n/stderr | tail -n1; cut -d' ' -f1,2 $n/wait; rmdir $n
  [..]
  exited 0
  $ n=$(cat clone); echo mount $CAP /w > $n/ns; echo exec /w/escape.wasm /etc/passwd ../../etc/passwd /proc/1/environ > $n/ctl; cut -d' ' -f1,2 $n/wait; cat $n/stderr; rmdir $n
  exited 0

ipos(1) does it all in a line, over the current directory.
  $ cd $W; printf 'a\nb\n' > lines; ipos cpu bob wc.wasm -l lines
  2 lines
  $ echo quiet | ipos cpu bob upper.wasm
  QUIET
  $ ipos cpu bob exit.wasm 3
  [3]
  $ echo nonsense > bad.wasm; ipos cpu bob bad.wasm
  ipos: job: refused 126 [..]
  [125]
  $ ipos cpu nobody true.wasm
  ipos: [..]nobody[..]
  [125]
  $ ls $N/cpu/bob $N/export | grep '^[0-9]'
  [..]
