//! No room for what jobs print.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::geteuid;

use super::{job, play_bound};
use crate::Verdict;
use crate::transcripts::programs;

tests!(a_full_disk_ends_the_job_that_prints_and_no_other,);

/// A file system of a size of its own, taken away when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Small {
        mount(Some("small"), at, Some("tmpfs"), MsFlags::empty(), Some(size)).unwrap();
        Small(at.to_owned())
    }

    fn resize(&self, size: &str) {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT, Some(size)).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn a_full_disk_ends_the_job_that_prints_and_no_other() -> Verdict {
    if !geteuid().is_root() {
        return Verdict::NotRun("only root can mount a small disk".into());
    }
    play_bound(|s| {
        let spools = Small::mount(&s.stage.path("ann/cpu/spool"), "size=1m");
        s.share(programs());
        // One that prints little and waits, one that fills the disk.
        job(s);
        s.ok("LITTLE=$J; tell $J/ctl 'exec /p/upper.wasm'; exec 5>$J/stdin; echo begun >&5; head -c 6 $J/stdout");
        job(s);
        s.ok("tell $J/ctl 'limit spool 64M' 'exec /p/flood.wasm'");
        assert_eq!(s.ok("cut -d' ' -f1,2 $J/wait"), "disk 153");
        let status = s.ok("cat $J/status");
        assert!(status.starts_with("disk 153 spool: ") && status.contains("No space left on device"), "{status}");
        let kept = s.ok("cat $J/stdout | tr -d x | wc -c; wc -c <$J/stdout; grep running cpu/ann/info");
        let kept: Vec<&str> = kept.lines().collect();
        assert!(kept[0] == "0" && kept[1].parse::<u64>().unwrap() >= 256 << 10 && kept[2] == "running 1", "{kept:?}");
        // The other has noticed nothing.
        assert_eq!(
            s.ok("echo still >&5; exec 5>&-; cat $LITTLE/stdout; cut -d' ' -f1,2 $LITTLE/wait"),
            "BEGUN\nSTILL\nexited 0"
        );
        // Room again: by the owner of the job, and by the owner of the disk.
        s.ok("rmdir $J");
        spools.resize("size=16m");
        job(s);
        s.ok("tell $J/ctl 'limit spool 8M' 'exec /p/flood.wasm'");
        assert_eq!(s.ok("cut -d' ' -f1,2 $J/wait; wc -c <$J/stdout"), format!("outlimit 153\n{}", 8 << 20));
        s.ok("rmdir $J");
        drop(spools);
    })
}
