//! keys: the words of `ctl`, `sign` and `verify`.

use crate::error::Error;
use crate::keyfile::unhex;

/// A line of `ctl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `new NAME`: make a key.
    New { name: String },
    /// `delete NAME`: forget a key and remove its file.
    Delete { name: String },
}

/// A request of `sign` or `verify`.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// `sign NAME HEX`.
    Sign { name: String, message: Vec<u8> },
    /// `verify KEY HEX SIGNATURE`.
    Verify { who: String, message: Vec<u8>, signature: [u8; 64] },
}

/// The verb of a line's words.
pub fn parse(words: &[String]) -> Result<Verb, Error> {
    match words {
        [verb, name] if verb == "new" => Ok(Verb::New { name: name.clone() }),
        [verb, name] if verb == "delete" => Ok(Verb::Delete { name: name.clone() }),
        _ => Err(Error::Usage { got: words.join(" "), want: "new NAME\" or \"delete NAME" }),
    }
}

/// The request of a line of `sign`. An empty message is written `''`.
pub fn sign(words: &[String]) -> Result<Request, Error> {
    match words {
        [verb, name, message] if verb == "sign" => Ok(Request::Sign { name: name.clone(), message: hex(message)? }),
        _ => Err(Error::Usage { got: shown(words), want: "sign NAME HEX" }),
    }
}

/// The request of a line of `verify`.
pub fn verify(words: &[String]) -> Result<Request, Error> {
    match words {
        [verb, who, message, signature] if verb == "verify" => {
            let bad = Error::Hex { what: "signature", want: "128 hex digits" };
            let message = hex(message)?;
            let signature = unhex(signature).and_then(|s| s.try_into().ok()).ok_or(bad)?;
            Ok(Request::Verify { who: who.clone(), message, signature })
        }
        _ => Err(Error::Usage { got: shown(words), want: "verify NAME|PUBLICKEY|PEERID HEX SIGNATURE" }),
    }
}

fn hex(message: &str) -> Result<Vec<u8>, Error> {
    unhex(message).ok_or(Error::Hex { what: "message", want: "an even number of hex digits" })
}

/// The first words of a request: a message may be long, and an error text is one line.
fn shown(words: &[String]) -> String {
    words.iter().take(2).map(|w| w.chars().take(32).collect::<String>()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let sig = "ab".repeat(64);
        for (text, want) in [
            ("sign node 00ff", Ok(Request::Sign { name: "node".into(), message: vec![0, 255] })),
            ("sign node", Err("write \"sign NAME HEX\"")),
            ("sign node 00 11", Err("write \"sign NAME HEX\"")),
            ("sign node 0", Err("the message is not an even number of hex digits")),
            ("verify k 00 ", Err("write \"verify NAME|PUBLICKEY|PEERID HEX SIGNATURE\"")),
            ("verify k 0x sig", Err("the message is not")),
            ("verify k 00 abab", Err("the signature is not 128 hex digits")),
            (
                &format!("verify k 00 {sig}"),
                Ok(Request::Verify { who: "k".into(), message: vec![0], signature: [0xab; 64] }),
            ),
        ] {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            let got = if words[0] == "sign" { sign(&words) } else { verify(&words) };
            match (got, want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{text}: {got}"),
                (got, want) => panic!("{text}: {got:?}, not {want:?}"),
            }
        }
    }
}
