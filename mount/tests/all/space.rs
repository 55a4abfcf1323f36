//! A name space on a mount: what a line written to `ns` changes is there for the next command.

use std::sync::Arc;

use fs_ninep::{Call, File, Kind};
use mount::Options;
use ns::{Namespace, Resolve};

use super::mounted::{Mounted, mounted_with};
use super::tree::{dir, root, value};

struct Nothing;

impl Resolve for Nothing {
    fn mount<'a>(&'a self, _source: &'a str, _spec: &'a str) -> Call<'a, Arc<dyn File>> {
        Box::pin(async { Err(Kind::NotFound.into()) })
    }
}

fn space(name: &str) -> Option<Mounted> {
    let ann = root(dir([("ann", dir([("info", value("ann's\n"))]))]));
    let bob = root(dir([("bob", dir([("info", value("bob's\n"))]))]));
    let space = Namespace::new(vec![("ann".into(), ann), ("bob".into(), bob)], Arc::new(Nothing));
    let options = Options { changes: Some(space.changes()), ..Options::default() };
    mounted_with(name, space.root(), options)
}

#[test]
fn a_line_written_to_ns_shows_in_the_next_command() {
    let Some(m) = space("a_line_written_to_ns_shows_in_the_next_command") else { return };
    for (script, want) in [
        ("echo \"bind '#ann' /cpu\" > ns; ls cpu; cat cpu/ann/info", "ann\nann's"),
        ("echo \"bind -a '#bob' /cpu\" > ns; ls cpu; cat cpu/bob/info", "ann\nbob\nbob's"),
        (
            "cd cpu; echo \"unmount '#ann' /cpu\" > ../ns; ls; cat bob/info; cat ann/info 2>/dev/null || echo gone",
            "bob\nbob's\ngone",
        ),
        ("echo \"bind '#ann' /cpu\" > ns; ls cpu; ls cpu/bob 2>/dev/null || echo gone", "ann\ngone"),
        ("echo \"unmount /cpu\" > ns; ls cpu 2>/dev/null || echo gone", "gone"),
    ] {
        m.check(script, want);
    }
    assert!(m.sh("bash -c 'echo bind nowhere /cpu > ns'").contains("write error"));
    assert!(m.sh("cat error").contains("nowhere"));
}

#[test]
fn a_listing_and_a_look_agree_on_inode_numbers() {
    let Some(m) = space("a_listing_and_a_look_agree_on_inode_numbers") else { return };
    m.check(
        "echo \"bind '#ann' /cpu\" > ns; echo \"bind '#bob' /pool\" > ns; ls cpu pool | tr '\\n' ' '",
        "cpu: ann  pool: bob",
    );
    m.check("for f in * cpu/* pool/*; do [ $(stat -c %i $f) = $(ls -di $f | cut -d' ' -f1) ] || echo $f; done", "");
    m.check("ls -i | while read i f; do [ $(stat -c %i $f) = $i ] || echo $f $i; done", "");
}
