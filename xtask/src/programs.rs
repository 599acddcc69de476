//! Tasks that build one program and run it.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::Run;
use crate::setup::{Need, setup};
use crate::test::Tally;
use crate::workspace::{Workspace, is_root, require_root};

/// A long test: an `#[ignore]`d test named `soak_<name>…`.
struct Soak {
    name: &'static str,
    what: &'static str,
    package: &'static str,
    /// The file in the package's `tests/` that holds it.
    test: &'static str,
    env: &'static [(&'static str, &'static str)],
    limit: Duration,
}

const SOAKS: &[Soak] = &[
    Soak {
        name: "diff",
        what: "10^7 frames per program through kernel and model: no divergence of verdict or bytes",
        package: "kuafu-dataplane",
        test: "differential",
        env: &[("KUAFU_SOAK_FRAMES", "10000000")],
        limit: Duration::from_secs(2 * 3600),
    },
    Soak {
        name: "wire",
        what: "10^7 hostile frames through relay, exit and entry, in kernel and model: none accepted, nothing moved",
        package: "kuafu-dataplane",
        test: "wire",
        env: &[("KUAFU_SOAK_FRAMES", "10000000")],
        limit: Duration::from_secs(2 * 3600),
    },
    Soak {
        name: "bits",
        what: "10^7 clients' frames with bits flipped through the balancer: each that leaves has right headers",
        package: "kuafu",
        test: "pin_edge",
        env: &[("KUAFU_SOAK_FRAMES", "10000000")],
        limit: Duration::from_secs(3600),
    },
    Soak {
        name: "flood",
        what: "10^7 packets of as many sources against services behind shields: 10,000 flows keep their targets",
        package: "kuafu-dataplane",
        test: "flood",
        env: &[],
        limit: Duration::from_secs(3600),
    },
    Soak {
        name: "game",
        what: "two minutes of a real game, accelerated: in the game, and never out of it",
        package: "kuafu",
        test: "players",
        env: &[("KUAFU_SOAK_GAME_S", "120")],
        limit: Duration::from_secs(15 * 60),
    },
    Soak {
        name: "failover",
        what: "a table of medians: a relay dies, with agents and controller alive and dead; a loss is left; back after an outage; a new relay carries",
        package: "kuafu",
        test: "players",
        env: &[],
        limit: Duration::from_secs(45 * 60),
    },
    Soak {
        name: "copies",
        what: "60,000 packets each way over two paths that lose 3 % each: nearly all arrive, none twice",
        package: "kuafu",
        test: "clusters",
        env: &[],
        limit: Duration::from_secs(15 * 60),
    },
    Soak {
        name: "peering",
        what: "BGP by gobgpd and FRR: silent routers, missing daemons, restarts, an agent that is gone, BFD",
        package: "kuafu",
        test: "clusters",
        env: &[],
        limit: Duration::from_secs(15 * 60),
    },
    Soak {
        name: "restarts",
        what: "an agent killed ten times and all keys renewed ten times, beside a control run; two hosts reboot without a controller",
        package: "kuafu",
        test: "players",
        env: &[],
        limit: Duration::from_secs(30 * 60),
    },
];

/// Benchmarks that only compute.
const ROOTLESS_BENCHES: [&str; 2] = ["ring", "routes"];

/// `kuafu demo`: without root by the model, which needs nothing.
pub(crate) fn demo(workspace: &Workspace, args: &[String]) -> Result<()> {
    if is_root()? {
        setup(Some(Need::Demo))?;
    }
    launch(workspace, "kuafu", &["demo".to_owned()], args)
}

/// `kuafu-bench NAME`.
pub(crate) fn bench(workspace: &Workspace, name: &str, args: &[String]) -> Result<()> {
    if !ROOTLESS_BENCHES.contains(&name) {
        require_root(
            "this benchmark makes network namespaces and loads BPF",
            "cargo xtask bench routes",
        )?;
        setup(Some(Need::Bench))?;
    }
    launch(workspace, "kuafu-bench", &[name.to_owned()], args)
}

/// Builds a package's binary of the same name and becomes it, so that Ctrl-C and its exit status are its own.
fn launch(workspace: &Workspace, package: &str, verb: &[String], args: &[String]) -> Result<()> {
    build_release(workspace, package)?;
    Run::new(workspace.target().join("release").join(package))
        .args(verb)
        .args(args)
        .replace()?;
    Ok(())
}

/// Builds a package in release mode.
pub(crate) fn build_release(workspace: &Workspace, package: &str) -> Result<()> {
    Run::new("cargo")
        .args(["build", "--release", "--locked", "-p", package])
        .dir(workspace.root())
        .run()
}

/// Prints the table of soaks.
pub(crate) fn list_soaks() -> Result<()> {
    for soak in SOAKS {
        println!("{:<8} {}", soak.name, soak.what);
    }
    Ok(())
}

/// Runs one soak; one that ran no test has failed.
pub(crate) fn soak(workspace: &Workspace, name: &str) -> Result<()> {
    let soak = SOAKS.iter().find(|soak| soak.name == name);
    let soak = soak.with_context(|| format!("no soak '{name}'; `cargo xtask soak` lists them"))?;
    require_root("soaks load BPF", "cargo test --workspace")?;
    setup(Some(Need::Test))?;
    let filter = format!("soak_{name}");
    let mut run = Run::within(soak.limit, "cargo")
        .args([
            "test",
            "--release",
            "--locked",
            "-p",
            soak.package,
            "--test",
            soak.test,
            "--",
            "--ignored",
            "--nocapture",
            &filter,
        ])
        .dir(workspace.root());
    for (variable, value) in soak.env {
        // What is set outside wins: a shorter or longer soak.
        let value = env::var(variable).unwrap_or_else(|_| (*value).to_owned());
        run = run.env(variable, value);
    }
    let mut tally = Tally::default();
    run.watch(|line| tally.see(line))?;
    print!("{}", tally.skips());
    ensure!(
        tally.passed() > 0,
        "no test named {filter} ran in {}",
        soak.package
    );
    println!("{tally}");
    Ok(())
}
