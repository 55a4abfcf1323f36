The key agent, keys(4). A node has a key from its first start on; its peer id is the node's.
  $ cd $N/keys; ls
  ctl
  error
  list
  sign
  verify
  $ cut -f1,2,4 list
  node	ed25519	[bob]
  $ test $(cut -f4 list) = $(cat $N/self/id)

The private half is in a file that nobody else may read, and in no file of the tree.
  $ stat -c '%a %s' $IPOS_HOME/keys/node.key; stat -c %a $IPOS_HOME/keys
  600 149
  700
  $ seed=$(cut -d' ' -f5 $IPOS_HOME/keys/node.key); grep -rc $seed list error
  list:0
  error:0
  [1]

A key more, and what it signs.
  $ echo new work > ctl; cut -f1 list
  node
  work
  $ exec 3<>sign; echo sign work 68656c6c6f >&3; read s <&3; exec 3>&-; echo ${#s}
  128
  $ exec 3<>verify; echo verify work 68656c6c6f $s >&3; read a <&3; exec 3>&-; echo $a
  good
  $ exec 3<>verify; echo verify node 68656c6c6f $s >&3; read a <&3; exec 3>&-; echo $a
  bad

A refusal is an error number to the writer, and a text in error. All of one write is obeyed, or none.
  $ printf 'new home\nnew work\n' > ctl; cut -f1 list
  [..]
  node
  work
  $ cat error
  [..]work[..]
  $ echo delete node > ctl
  [..]
  [1]
  $ cat error
  [..]node[..]
  $ echo delete work > ctl; cut -f1 list
  node
