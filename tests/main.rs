//! ipos as its users meet it: the program, real nodes, a real shell.

mod manual;
