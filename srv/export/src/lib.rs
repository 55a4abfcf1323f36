//! srv-export: grants and capabilities over the user's own trees.
