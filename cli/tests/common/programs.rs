//! Programs from Debian that know nothing of Kuafu: a game, a download, a capture and its decoder.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kuafu_lab::world::World;
use kuafu_lab::{Namespace, Process};
use nix::sys::signal::Signal;

use crate::intent::{GAME_PORT, Game};

const GAME: &str = "/usr/games/chocolate-doom";
const GAME_SERVER: &str = "/usr/games/chocolate-server";
const LEVELS: &str = "/usr/share/games/doom/freedm.wad";
/// For a program to say what is expected of it.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two questions to the game's server.
const PAUSE: Duration = Duration::from_secs(2);

/// The first of these programs that is absent.
pub fn absent() -> Option<&'static str> {
    [
        GAME,
        GAME_SERVER,
        LEVELS,
        "/usr/bin/tcpdump",
        "/usr/bin/tshark",
        "/bin/busybox",
    ]
    .into_iter()
    .find(|file| !Path::new(file).exists())
}

/// Plays for a while: the client is in the game at the server when it begins, and at every look until the end.
/// Returns how often the server said so.
pub fn play_doom(world: &World, game: &Game, duration: Duration, folder: &Path) -> usize {
    let to = game.accelerated(world).unwrap();
    let (server, player) = (
        world.netns(game.server).unwrap(),
        world.netns(game.player).unwrap(),
    );
    let mut serve = Command::new("stdbuf");
    serve.args(["-oL", GAME_SERVER, "-privateserver", "-port"]);
    serve.arg(GAME_PORT.to_string()).current_dir(folder);
    let _server = server.spawn_logged(serve, &folder.join("server.log")).unwrap();
    let mut play = Command::new("stdbuf");
    play.args(["-oL", GAME, "-iwad", LEVELS, "-connect", &to.to_string()]);
    play.args(["-nodes", "1", "-nosound", "-nogui"])
        .current_dir(folder);
    play.env("HOME", folder)
        .env("SDL_VIDEODRIVER", "dummy")
        .env("SDL_AUDIODRIVER", "dummy");
    let mut client = player.spawn_logged(play, &folder.join("client.log")).unwrap();
    client.await_line("D_InitNetGame: Connected to", LIMIT).unwrap();
    let start = Instant::now();
    let mut seen = 0;
    while start.elapsed() < duration {
        std::thread::sleep(PAUSE);
        let said = query(player, to, folder);
        assert!(said.contains("game running"), "the server says: {said}");
        assert!(said.contains("1/4"), "the server says: {said}");
        seen += 1;
    }
    seen
}

/// What the server answers to a player's question, through the accelerator too.
fn query(player: &Namespace, to: SocketAddrV4, folder: &Path) -> String {
    let mut query = Command::new("timeout");
    query.args(["20", GAME, "-query", &to.to_string()]);
    query.env("HOME", folder).current_dir(folder);
    let output = player.output(query, LIMIT).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Downloads 10 MB by busybox's wget from its httpd, through the accelerator; the octets must be the server's.
pub fn download(world: &World, game: &Game, folder: &Path) {
    let content: Vec<u8> = (0..10_000_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(folder.join("content"), &content).unwrap();
    let mut serve = Command::new("busybox");
    serve
        .args(["httpd", "-f", "-p", &GAME_PORT.to_string(), "-h"])
        .arg(folder);
    serve.stdin(Stdio::null());
    let _server = world.netns(game.server).unwrap().spawn(serve).unwrap();
    let url = format!("http://{}/content", game.accelerated(world).unwrap());
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut load = Command::new("busybox");
        load.args(["wget", "-q", "-O", "loaded", &url])
            .current_dir(folder);
        let output = world.netns(game.player).unwrap().output(load, LIMIT).unwrap();
        if output.status.success() {
            break;
        }
        // The server may not listen yet.
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(Instant::now() < deadline, "{url}: {complaint}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(
        std::fs::read(folder.join("loaded")).unwrap() == content,
        "other octets"
    );
}

/// A capture of an interface, until it is ended.
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts tcpdump on `device`.
    pub fn start(namespace: &Namespace, device: &str, file: &Path) -> Self {
        let mut dump = Command::new("tcpdump");
        dump.args([
            "-i",
            device,
            "-n",
            "-U",
            "--immediate-mode",
            "-s",
            "256",
            "-Z",
            "root",
            "-w",
        ]);
        dump.arg(file);
        let mut process = namespace.spawn_logged(dump, &file.with_extension("log")).unwrap();
        process.await_line("listening on", LIMIT).unwrap();
        Self {
            process,
            file: file.to_owned(),
        }
    }

    /// Ends it; what tshark says of each packet that `filter` lets through, by `fields`.
    pub fn decode(mut self, filter: &str, fields: &[&str]) -> Vec<String> {
        self.process.signal(Signal::SIGTERM).unwrap();
        self.process.wait(LIMIT).unwrap();
        decode(&self.file, filter, fields)
    }
}

/// What tshark says of each packet of a file that `filter` lets through, by `fields`.
pub fn decode(file: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().unwrap();
    assert!(
        output.status.success(),
        "tshark: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}
