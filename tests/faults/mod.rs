//! Bad input and faults, as a user meets them: a clear error in time, nothing lost, nothing left over. Real nodes, a real
//! shell; each command has a deadline.

mod caps;
mod disk;
mod frames;
mod home;
mod peers;
mod signals;
mod wasm;
mod words;

use std::time::{Duration, Instant};

use crate::Verdict;
use crate::scene::{Scene, left};

/// The tests of each noun.
pub(crate) const TESTS: &[&[crate::Test]] =
    &[words::TESTS, home::TESTS, peers::TESTS, caps::TESTS, frames::TESTS, wasm::TESTS, disk::TESTS, signals::TESTS];

/// Within this a fault of another node is an error here.
const FAULT: Duration = Duration::from_secs(5);

/// How long what belongs to a scene may outlive it.
const LEFT: Duration = Duration::from_secs(10);

/// Plays `act` on two nodes, from a shell in Bob's mount, and sees that nothing of them is left.
fn play(act: impl FnOnce(&mut Scene)) -> Verdict {
    let mut scene = match Scene::strangers() {
        Ok(scene) => scene,
        Err(verdict) => return verdict,
    };
    scene.ok("cd $N");
    act(&mut scene);
    let dir = scene.stage.path("");
    drop(scene);
    let start = Instant::now();
    loop {
        let left = left(&dir);
        if left.is_empty() {
            return Verdict::Passed;
        }
        assert!(start.elapsed() < LEFT, "left over:\n{}", left.join("\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As [`play`], after Bob has dialled Ann and bound her cpu, which she granted, behind his.
fn play_bound(act: impl FnOnce(&mut Scene)) -> Verdict {
    play(|scene| {
        scene.meet();
        act(scene);
    })
}

/// A new job of Ann's, `$J`, that has the export `$M` at /p.
fn job(scene: &mut Scene) {
    scene.ok("exec 4<>cpu/ann/clone; read n <&4; exec 4>&-; J=cpu/ann/$n");
    scene.ok("tell $J/ns \"mount $(cat export/$M/cap) /p\"");
}
