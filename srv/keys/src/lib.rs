//! srv-keys: the key agent.
