ripgrep, built for WebAssembly from its own release, unchanged, searching on Ann's machine a source tree of more than a
thousand files that stays on Bob's: what it finds must be what grep finds on Bob's machine.
  $ test $(find $TREE -type f | wc -l) -ge 1000
  $ echo dial $ANN ann > $N/peers/ctl; echo grant $(cat $N/self/id) /cpu > $A/export/ctl; echo bind -a /n/ann/cpu /cpu > $N/ns
  $ mkdir $W/bin; cp $RG $W/bin/rg.wasm
  $ b=$(cat $N/export/clone); printf 'bind %s /bin\nro\nto ann\n' $W/bin > $N/export/$b/ctl
  $ t=$(cat $N/export/clone); printf 'bind %s /src\nro\nto ann\n' $TREE > $N/export/$t/ctl
  $ cd $N/cpu/ann; n=$(cat clone)
  $ printf 'mount %s /bin ro\nmount %s /src ro\n' $(cat $N/export/$b/cap) $(cat $N/export/$t/cap) > $n/ns
  $ echo exec /bin/rg.wasm -uuu --text --sort path --count --fixed-strings memcpy /src > $n/ctl
  $ cat $n/stdout > $W/far; cat $n/stderr; cat $n/wait
  exited 0 [..]
  $ (cd $TREE && grep -r --text -cF memcpy .) | grep -v ':0$' | sed 's,^\.,/src,' | sort > $W/near
  $ sort $W/far | cmp - $W/near && test -s $W/near
  $ test $(wc -l < $W/far) -ge 10
  $ grep -E '^(fuel|in|out) ' $n/usage
  fuel [..]
  in [..]
  out [..]
  $ rmdir $n; cd $W; rmdir $N/export/$b $N/export/$t
