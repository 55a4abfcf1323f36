//! The text of an ed25519 key as a libp2p peer id: base58btc of the identity multihash of the protobuf public key
//! (peer-ids.md of the libp2p specifications).

use fs_ninep::PeerId;

/// Identity multihash (code 0x00, 36 bytes), then the protobuf message: field 1 key type Ed25519 (08 01), field 2 the
/// public key (12 20 and 32 bytes).
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The peer id of the ed25519 public key `public`.
pub fn peer_id(public: &[u8; 32]) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&PREFIX);
    bytes[6..].copy_from_slice(public);
    PeerId::new(bs58::encode(bytes).into_string())
}

/// The public key inside the text of a peer id; `None` for other text, and for ids of other kinds of key (those are
/// hashes, the key is not in them).
pub fn public_key(id: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 38];
    let n = bs58::decode(id).onto(&mut bytes[..]).ok()?;
    (n == 38 && bytes[..6] == PREFIX).then(|| bytes[6..].try_into().expect("38 bytes less 6"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Ed25519 example of peer-ids.md: a public key as protobuf; and the key of RFC 8032, test 1.
    const KNOWN: [(&str, &str); 2] = [
        (
            "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e",
            "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq",
        ),
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV",
        ),
    ];

    #[test]
    fn known_ids_both_ways() {
        for (hex, id) in KNOWN {
            let key: [u8; 32] = crate::keyfile::unhex(hex).unwrap().try_into().unwrap();
            assert_eq!(peer_id(&key).as_str(), id);
            assert_eq!(public_key(id), Some(key));
        }
    }

    #[test]
    fn other_text_holds_no_key() {
        for text in [
            "",
            "ann",
            "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3p",
            "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pqq",
            "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC",
            "0OIl",
        ] {
            assert_eq!(public_key(text), None, "{text:?}");
        }
    }
}
