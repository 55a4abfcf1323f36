//! srv-net: libp2p: dial and listen; a stream is a connection.
