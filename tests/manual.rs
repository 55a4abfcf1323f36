//! The manual against the program: every option, every file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use fs_tree::paths;
use ipos::Ipos;

use crate::Verdict;

tests!(every_tree_is_its_synopsis, every_option_is_in_the_manual_and_no_other, every_page_has_its_sections_in_order);

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The options of the `.It` lines of a page, as `-z` and `--lazy`.
fn options_told(page: &str) -> BTreeSet<String> {
    let items = page.lines().filter_map(|l| l.strip_prefix(".It Fl "));
    let option = |part: &str| {
        let mut words = part.split_whitespace();
        match words.next() {
            Some("Fl") => format!("--{}", words.next().unwrap_or_default()),
            Some(letter) => format!("-{letter}"),
            None => panic!("an option without a name in {part:?}"),
        }
    };
    items.flat_map(|i| i.split(" , Fl ").map(option)).collect()
}

fn options_of(command: &clap::Command, global: bool) -> BTreeSet<String> {
    let args =
        command.get_arguments().filter(|a| !a.is_positional() && !a.is_hide_set() && a.is_global_set() == global);
    let named = |a: &clap::Arg| {
        let short = a.get_short().map(|s| format!("-{s}"));
        short.into_iter().chain(a.get_long().map(|l| format!("--{l}"))).collect::<Vec<_>>()
    };
    args.flat_map(named).filter(|o| !["-h", "--help", "-V", "--version"].contains(&o.as_str())).collect()
}

fn every_option_is_in_the_manual_and_no_other() -> Verdict {
    let ipos = Ipos::command();
    let mut told = options_told(&page("man1/ipos.1"));
    assert!(["-h", "--help", "-V", "--version"].iter().all(|o| told.remove(*o)));
    assert_eq!(told, options_of(&ipos, true), "ipos");
    let list = page("man1/ipos.1");
    for verb in ipos.get_subcommands().filter(|v| !v.is_hide_set()) {
        let name = verb.get_name();
        let section = if name == "node" { 8 } else { 1 };
        assert!(list.contains(&format!(".It Cm {name}\n")), "ipos(1) does not list {name}");
        let told = options_told(&page(&format!("man{section}/ipos-{name}.{section}")));
        assert_eq!(told, options_of(verb, false), "{name}");
    }
    Verdict::Passed
}

fn every_page_has_its_sections_in_order() -> Verdict {
    const ORDER: &[&str] = &[
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "ENVIRONMENT",
        "FILES",
        "EXIT STATUS",
        "EXAMPLES",
        "DIAGNOSTICS",
        "SOURCE",
        "SEE ALSO",
        "BUGS",
    ];
    // A page on a format, or on what has no tree of its own, may do without a synopsis.
    const MUST: &[&str] = &["NAME", "DESCRIPTION", "EXAMPLES", "DIAGNOSTICS", "SOURCE", "SEE ALSO", "BUGS"];
    let man = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let mut pages = 0;
    for section in fs::read_dir(man).unwrap() {
        for page in fs::read_dir(section.unwrap().path()).unwrap() {
            let path = page.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let heads: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix(".Sh ")).collect();
            let known: Vec<&str> = ORDER.iter().copied().filter(|h| heads.contains(h)).collect();
            let standing: Vec<&str> = heads.iter().copied().filter(|h| ORDER.contains(h)).collect();
            assert_eq!(standing, known, "{}: order", path.display());
            let missing: Vec<_> = MUST.iter().filter(|h| !heads.contains(h)).collect();
            assert!(missing.is_empty(), "{}: lacks {missing:?}", path.display());
            pages += 1;
        }
    }
    assert!(pages > 12, "{pages} pages");
    Verdict::Passed
}

#[track_caller]
fn same_tree(name: &str, trees: &[Vec<String>]) {
    let text = page(&format!("man4/{name}.4"));
    let synopsis = text.split(".Sh ").find_map(|s| s.strip_prefix("SYNOPSIS")).unwrap_or_else(|| panic!("{name}(4)"));
    let told: Vec<&str> = synopsis.lines().filter_map(|l| l.strip_prefix(".It Pa ")).collect();
    assert_eq!(told, trees.concat(), "SYNOPSIS of {name}(4)");
}

fn every_tree_is_its_synopsis() -> Verdict {
    same_tree("cpu", &[paths(srv_cpu::TREE)]);
    same_tree("keys", &[paths(srv_keys::TREE)]);
    same_tree("peers", &[paths(srv_peers::TREE), paths(srv_peers::NAMES)]);
    same_tree("export", &[paths(srv_export::TREE)]);
    same_tree("self", &[paths(srv_node::TREE)]);
    same_tree("cpu", &[paths(srv_cpu::TREE)]);
    same_tree("ns", &[paths(ns::TREE)]);
    Verdict::Passed
}
