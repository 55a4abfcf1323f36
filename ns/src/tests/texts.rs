//! namespace(6) text: in, out, and back.

use fs_ninep::Kind;

use super::{World, kind, space};
use crate::{TEXT_MAX, quote, redact};

fn world() -> World {
    World::new(&[
        ("n", "ann/cpu/ann/info=i ann/files/d/x=1 bob/cpu/bob/info=i"),
        ("cpu", "me/info=i any/info=i"),
        ("files", "d/e/f=1 it's/x=1 two\u{a0}words/x=1 x=1"),
        ("self", "ns=1"),
    ])
}

/// Applies `text`; what is printed then is `expected` (or the same), and makes an equal name space.
async fn check(text: &str, expected: Option<&str>) {
    let w = world();
    w.apply(text).await;
    let printed = w.ns.text_with_secrets();
    assert_eq!(printed, expected.unwrap_or(text), "{text}");
    let again = space(&w.mems);
    again.apply(&printed).await.unwrap_or_else(|e| panic!("{printed}: {e}"));
    assert_eq!(again.text_with_secrets(), printed, "{text}");
}

#[tokio::test]
async fn a_name_space_is_printed_so_that_it_can_be_read_again() {
    // As it was written.
    for text in [
        "bind '#n' /n\nbind -c '#cpu' /cpu\nbind -a /n/ann/cpu /cpu\nbind -ac /n/bob/cpu /cpu\n",
        "bind '#n' /n\nbind '#cpu' /cpu\nbind -b /n/ann/cpu /cpu\n",
        "bind '#files/d' /d\nbind -a '#cpu' /d/e\nbind -b '#n' /d/e\n",
        "bind '#files' /f\nbind -c /f/d /f/d\n",
        "bind '#files' /f\nbind -f /f/d /f/d/e\n",
        "mount srv/n /p ann/files\nbind /p/d /d\n",
        "mount -cC 'srv/n#secret' /p\n",
        "bind '#files/it''s' '/a b'\nbind '#files/two\u{a0}words' /$x\n".replace("/$x", "'/$x'").as_str(),
        "nomnt\n",
        "bind '#n' /n\nnomnt\n",
        "",
    ] {
        check(text, None).await;
    }
    for (text, expected) in [
        // Comments, relative paths, words quoted or not, devices bare, a word that takes a value.
        ("# one\n\n  bind #n n # two # three\n cd /n\n", "bind '#n' /n\n"),
        ("bind '#'n/ann/../bob /n/../n", "bind '#n/bob' /n\n"),
        ("bind #n /$user\nbind #cpu '/$user'", "bind '#n' /ann\nbind '#cpu' '/$user'\n"),
        ("bind -a -c #n /n\nbind -C -fb #cpu /n", "bind -c '#n' /n\nbind -bCf '#cpu' /n\n"),
        // By device where the path it was bound by leads elsewhere by now, or nowhere.
        ("bind #n /n\nbind /n/ann/cpu /cpu\nunmount /n", "bind '#n/ann/cpu' /cpu\n"),
        ("bind #n /n\nbind -a /n/ann/cpu /cpu\nbind #cpu /n", "bind '#n/ann/cpu' /cpu\nbind '#cpu' /n\n"),
        (
            "bind #n /n\nbind /n/ann/cpu /cpu\nbind -a #cpu /n",
            "bind '#n' /n\nbind /n/ann/cpu /cpu\nbind -a '#cpu' /n\n",
        ),
        (
            "bind #n /n\nbind -a #cpu /n\nbind /n/ann/cpu /cpu",
            "bind '#n' /n\nbind -a '#cpu' /n\nbind '#n/ann/cpu' /cpu\n",
        ),
        // A union's members, each for itself.
        (
            "bind #cpu /c\nbind -bc #n/ann/cpu /c\nbind /c /d\nbind -b /c /d\nunmount /c",
            "bind '#n/ann/cpu' /d\nbind -a '#cpu' /d\nbind -b '#cpu' /d\nbind -b '#n/ann/cpu' /d\n",
        ),
        // What stood there comes first again.
        (
            "bind #files /f\nbind -a #cpu /f/d\nbind -b #n /f/d\nunmount #cpu /f/d",
            "bind '#files' /f\nbind -b '#n' /f/d\n",
        ),
        ("bind #files /f\nbind -a #cpu /f/d\nunmount #cpu /f/d", "bind '#files' /f\nbind /f/d /f/d\n"),
        (
            "bind #files /f\nbind -a #cpu /f/d\nbind -b #n /f\n",
            "bind '#files' /f\nbind -a '#cpu' /f/d\nbind -b '#n' /f\n",
        ),
        // A mount that stands nowhere any more.
        (
            "mount srv/n /m ann\nbind -a #cpu /d\nbind -ac /m/files/d /d\nunmount /m",
            "bind '#cpu' /d\nmount srv/n /.scratch ann\nbind -ac /.scratch/files/d /d\nunmount /.scratch\n",
        ),
        // Parents come first, though they were bound again later.
        (
            "bind #files /f\nbind -a #cpu /f\nbind -a #n /f/d\nunmount #files /f\nbind -a #files /f\nunmount #cpu /f",
            "bind '#files' /f\nbind -a '#n' /f/d\n",
        ),
        ("bind #n /n\nclear\nbind #cpu /c", "bind '#cpu' /c\n"),
    ] {
        check(text, Some(expected)).await;
    }
}

#[tokio::test]
async fn lines_that_make_no_sense_are_refused_by_number_and_nothing_is_done() {
    let w = world();
    w.apply("bind '#n' /n").await;
    for (text, kind_expected, says) in [
        ("bind #cpu /c\nbend #n /n", Kind::Invalid, "ns line 2: \"bend\" is no name space command; write bind,"),
        ("bind #cpu", Kind::Invalid, "ns line 1: write \"bind [-abcCf] new old\""),
        ("bind -x #cpu /c", Kind::Invalid, "ns line 1: -x is no flag; write -a, -b, -c, -C or -f"),
        ("bind -ab #cpu /c", Kind::Invalid, "ns line 1: -a and -b exclude each other"),
        ("bind 'cpu /c", Kind::Invalid, "ns line 1: a quote is not closed"),
        ("bind $host /c", Kind::Invalid, "ns line 1: $host is not set here"),
        ("mount srv/n", Kind::Invalid, "ns line 1: write \"mount [-abcCf] source old [spec]\""),
        ("mount srv/none /c", Kind::NotFound, "ns line 1: srv/none: file does not exist"),
        ("mount what#secret /c", Kind::Invalid, "ns line 1: what#*: what#*: what?"),
        ("mount srv/n /c none", Kind::NotFound, "ns line 1: srv/n: file does not exist"),
        ("unmount", Kind::Invalid, "ns line 1: write \"unmount [new] old\""),
        (
            "unmount srv/n#secret /n",
            Kind::NotFound,
            "ns line 1: srv/n#* is not bound at /n; \"unmount /n\" takes all away",
        ),
        ("clear all", Kind::Invalid, "ns line 1: write \"clear\""),
        ("bind #cpu /c\nbind /n/bob/cup /c", Kind::NotFound, "ns line 2: /n/bob/cup: file does not exist"),
        ("bind #cup /c", Kind::NotFound, "ns line 1: #cup: no such device; the devices are #n #cpu #files #self"),
        (
            "bind #cpu /n/bob/cup",
            Kind::NotFound,
            "ns line 1: /n/bob/cup: file does not exist; only a name directly in / is made by a bind: bind over a name that exists, or over /cup",
        ),
        ("bind #cpu /n/ann/cpu/ann/info/x", Kind::NotDir, "ns line 1: /n/ann/cpu/ann/info/x: not a directory"),
        ("bind #cpu /c\nclear\nbind #cpu /n\nunmount /c", Kind::NotFound, "ns line 4: /c: nothing is bound there"),
        ("bind -a #cpu /n/ann\nunmount /n", Kind::Busy, "ns line 2: /n: /n/ann is bound below it; unmount that first"),
        ("bind -a #cpu /n/ann\nbind #cpu /n", Kind::Busy, "ns line 2: /n: /n/ann is bound below it"),
        ("clear\n. /n/ann/cpu/ann/info", Kind::NotFound, "ns line 2: /n/ann/cpu/ann/info: nothing is bound at /n"),
        (". /n/ann", Kind::IsDir, "ns line 1: /n/ann: file is a directory"),
        (&format!("bind #cpu {}", "a/".repeat(5000)), Kind::NameTooLong, "ns line 1: "),
    ] {
        let refusal = w.ns.apply(text).await.unwrap_err();
        assert_eq!(refusal.kind(), kind_expected, "{text}: {refusal}");
        assert!(refusal.to_string().starts_with(says), "{text}: {refusal}");
        assert_eq!(w.ns.text(), "bind '#n' /n\n", "{text}");
    }
}

#[tokio::test]
async fn secrets_are_shown_to_nobody() {
    let w = world();
    let mut events = w.file("/event").await.unwrap();
    events = events.walk(&[]).await.end.unwrap();
    let open = events.open(fs_ninep::OpenFlags(fs_ninep::OpenFlags::NONBLOCK)).await.unwrap();
    w.apply("mount srv/n#sesame /p ann\nbind /p/files /f\nunmount /f").await;
    assert_eq!(w.ns.text(), "mount 'srv/n#*' /p ann\n");
    assert_eq!(w.ns.text_with_secrets(), "mount 'srv/n#sesame' /p ann\n");
    w.apply("unmount 'srv/n#*' /p").await;
    let lines = String::from_utf8(open.read(0, 4096).await.unwrap().to_vec()).unwrap();
    assert_eq!(lines, "mount 'srv/n#*' /p ann\nbind /p/files /f\nunmount /f\nunmount 'srv/n#*' /p\n");
    assert_eq!(redact("ipos:12D3/4#sesame"), "ipos:12D3/4#*");
    for (word, quoted) in
        [("a", "a"), ("", "''"), ("#a", "'#a'"), ("it's", "'it''s'"), ("$x", "'$x'"), ("a\tb", "'a\tb'")]
    {
        assert_eq!(quote(word), quoted);
    }
}

#[tokio::test]
async fn a_text_may_name_files_of_its_own_name_space() {
    let w = World::new(&[("f", "a/x=1 deep/x=1")]);
    w.apply("bind #f /f").await;
    w.put("/f/lines", 0, "bind #f/a /one # don't\n. f/more\n").await.unwrap();
    w.put("/f/more", 0, "bind #f/deep /two\n").await.unwrap();
    w.apply(". /f/lines\nbind #f /three").await;
    assert_eq!(w.ls("/").await.unwrap(), "ns error event f one three two");
    w.put("/f/self", 0, "bind #f /four\n. /f/self\n").await.unwrap();
    let refusal = w.ns.apply(". /f/self").await.unwrap_err();
    assert_eq!(refusal.kind(), Kind::Loop);
    assert!(refusal.to_string().starts_with("ns line 1: ns line 2: "), "{refusal}");
    assert_eq!(kind(w.ls("/four").await), Kind::NotFound, "all or nothing");
    w.put("/f/long", 0, &"#".repeat(TEXT_MAX + 1)).await.unwrap();
    assert_eq!(kind(w.ns.apply(". /f/long").await), Kind::TooBig);
}

#[tokio::test]
async fn a_member_is_unmounted_by_any_name_it_has() {
    for word in ["/n/ann/cpu", "n/ann/cpu/", "#n/ann/cpu", "/again/cpu", "'#n'/ann/x/../cpu"] {
        let w = world();
        w.apply("bind #n /n\nbind #n/ann /again\nbind #cpu /cpu\nbind -a /n/ann/cpu /cpu").await;
        w.apply(&format!("unmount {word} /cpu")).await;
        assert_eq!(w.ls("/cpu").await.unwrap(), "any me", "{word}");
    }
    // Though its machine is away, or nobody knows any more what the path was.
    let w = world();
    w.apply("bind #n /n\nbind #cpu /cpu\nbind -a /n/ann/cpu /cpu\nunmount /n").await;
    w.mem("n").set(super::mem::Health::Fails(Kind::Unreachable));
    w.apply("unmount /n/ann/cpu /cpu").await;
    assert_eq!(w.ls("/cpu").await.unwrap(), "any me");
}

#[tokio::test]
async fn texts_written_at_the_same_time_all_take_effect() {
    let w = world();
    let lines: Vec<String> = (0..20).map(|i| format!("bind #files/d /{i}\nbind -a #cpu /all")).collect();
    let done = futures::future::join_all(lines.iter().map(|l| w.ns.apply(l))).await;
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(w.ls("/").await.unwrap().split(' ').count(), 3 + 20 + 1);
    assert_eq!(w.ns.text().matches("'#cpu'").count(), 20);
}

#[test]
fn no_text_is_too_strange() {
    let vars = std::collections::HashMap::from([("user".to_owned(), "ann".to_owned())]);
    let pieces = [
        "bind", "mount ", " -", "abcCf", "'", "''", "#", "$", "$user", "/", "..", ".", " ", "\t", "\n", "\0",
        "\u{fe0f}", "x", "\r\n",
    ];
    let mut seed: u64 = 0x2545_f491_4f6c_dd1d;
    for _ in 0..5_000 {
        let mut text = String::new();
        for _ in 0..12 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text += pieces[(seed >> 33) as usize % pieces.len()];
        }
        let Ok(lines) = crate::text::parse(&text, &vars) else { continue };
        for line in lines {
            // A command printed is the same command.
            let printed = crate::text::line(&line.command);
            let again = crate::text::parse(&printed, &vars).unwrap_or_else(|e| panic!("{text:?} {printed:?}: {e}"));
            assert_eq!(crate::text::line(&again[0].command), printed, "{text:?}");
        }
    }
}
