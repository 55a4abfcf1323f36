//! ns: name spaces: bind, mount, unmount, unions, namespace(6).
