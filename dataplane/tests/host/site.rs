//! Two hosts on one wire, in namespaces, each with a guest behind a port.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kuafu_dataplane::bpf::{Pins, Sizes};
use kuafu_dataplane::host::{Host, Options};
use kuafu_dataplane::uninstall;
use kuafu_lab::Namespace;
use kuafu_lab::link::{End, Mac, Offloads, veth};
use kuafu_model::HostState;
use kuafu_pipeline::Reason;
use kuafu_proto::state::from_json;
use tempfile::TempDir;

/// Nothing here takes longer on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a datagram may take before it is sent again, or counts as lost.
const ANSWER: Duration = Duration::from_secs(1);

/// A host, its guest, and where its things are.
pub struct Site {
    pub number: u8,
    pub host: Namespace,
    pub guest: Namespace,
    pub data: TempDir,
    pub pins: PathBuf,
}

/// Two hosts on one wire.
pub fn sites(test: &str) -> [Site; 2] {
    let prefix = format!("kfh{}", std::process::id());
    let sites = [1, 2].map(|number| Site {
        number,
        host: Namespace::create(&prefix, &format!("{test}-h{number}")).unwrap(),
        guest: Namespace::create(&prefix, &format!("{test}-g{number}")).unwrap(),
        data: tempfile::tempdir().unwrap(),
        pins: PathBuf::from(format!("/sys/fs/bpf/{prefix}-{test}")),
    });
    let end = |site: usize| End {
        addresses: vec![format!("192.0.2.{}/24", site + 1).parse().unwrap()],
        offloads: Offloads::Wire,
        ..End::new(&sites[site].host, "eth0")
    };
    veth(&end(0), &end(1), 1500).unwrap();
    for site in &sites {
        site.plug();
    }
    sites
}

impl Site {
    /// The cable between the host's `port` and its guest.
    pub fn plug(&self) {
        let guest = End {
            mac: Some(Mac([2, 0, 0, 0, 7, self.number])),
            addresses: vec![format!("10.7.0.{}/24", self.number).parse().unwrap()],
            ..End::new(&self.guest, "eth0")
        };
        veth(&End::new(&self.host, "port"), &guest, 1450).unwrap();
    }

    pub fn name(&self) -> String {
        format!("h{}", self.number)
    }

    pub fn pins(&self) -> Pins {
        Pins::new(&self.pins, &self.name())
    }

    pub fn options(&self) -> Options {
        Options {
            node: self.name(),
            pins: self.pins(),
            data: self.data.path().to_owned(),
            xdp: None,
            sizes: Sizes::default(),
        }
    }

    pub fn open(&self) -> Host {
        self.host.run(|| Host::open(self.options())).unwrap().unwrap()
    }

    pub fn apply(&self, host: &mut Host, state: &HostState) -> kuafu_dataplane::Result<()> {
        self.host.run(|| host.apply(state)).unwrap()
    }

    pub fn tick(&self, host: &mut Host) -> Vec<String> {
        self.host.run(|| host.tick()).unwrap().unwrap()
    }

    /// One port here, the other's as an endpoint.
    pub fn state(&self) -> HostState {
        let (own, other) = (self.number, 3 - self.number);
        let text = serde_json::json!({
            "cluster": "test",
            "revision": 1,
            "node": {"id": own, "name": self.name(), "local": format!("192.0.2.{own}"),
                "public": format!("192.0.2.{own}"), "overlay": format!("100.64.0.{own}"), "udp_port": 6081},
            "ports": [{"name": "port", "vni": 7, "address": format!("10.7.0.{own}"),
                "mac": format!("02:00:00:00:07:0{own}"), "interface": "port"}],
            "endpoints": [{"vni": 7, "address": format!("10.7.0.{other}"),
                "mac": format!("02:00:00:00:07:0{other}"), "host": format!("192.0.2.{other}")}],
            "vteps": [{"vni": 7, "address": format!("192.0.2.{other}")}],
        });
        from_json(&text.to_string()).unwrap()
    }

    pub fn setting(&self, key: &str) -> String {
        let read = || fs::read_to_string(format!("/proc/sys/{key}"));
        self.host.run(read).unwrap().unwrap().trim().to_owned()
    }

    pub fn has(&self, device: &str) -> bool {
        let number = || nix::net::if_::if_nametoindex(device).is_ok();
        self.host.run(number).unwrap()
    }

    pub fn uninstall(&self) -> Vec<String> {
        let done = self
            .host
            .run(|| uninstall(&self.pins(), self.data.path(), &self.data.path().join("run")));
        done.unwrap().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.pins().remove_all();
    }
}

/// Answers every datagram until `stop`.
fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).unwrap();
        }
    }
}

/// A socket in the first guest whose datagrams the second's echo answers, while `work` runs.
pub fn with_echo(sites: &[Site; 2], work: impl FnOnce(&UdpSocket)) {
    let bind = |site: &Site| {
        let address = (Ipv4Addr::new(10, 7, 0, site.number), 7000);
        site.guest.run(|| UdpSocket::bind(address)).unwrap().unwrap()
    };
    let (client, server) = (bind(&sites[0]), bind(&sites[1]));
    client.connect("10.7.0.2:7000").unwrap();
    client.set_read_timeout(Some(ANSWER)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| echo(&server, &stop));
        let stops = Stops(&stop);
        work(&client);
        drop(stops);
    });
}

/// Waits until an echo of the first guest's comes back.
pub fn until_they_talk(sites: &[Site; 2], hosts: [&mut Host; 2], client: &UdpSocket) {
    let [one, two] = hosts;
    until("guests talk", || {
        sites[0].tick(one);
        sites[1].tick(two);
        answered(client, 0)
    });
}

/// Stops the echo also when a test fails.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether a datagram of that number is answered.
pub fn answered(client: &UdpSocket, number: u32) -> bool {
    if client.send(&number.to_be_bytes()).is_err() {
        return false;
    }
    let mut answer = [0; 64];
    let deadline = Instant::now() + ANSWER;
    while Instant::now() < deadline {
        match client.recv(&mut answer) {
            Ok(4) if answer[..4] == number.to_be_bytes() => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many packets this host dropped for a reason.
pub fn dropped(host: &Host, reason: Reason) -> u64 {
    let of_cpus = host.maps().drops.get(reason as u32).unwrap();
    of_cpus.iter().map(|drop| drop.packets).sum()
}

/// Both hosts with their states in force.
pub fn opened(sites: &[Site; 2]) -> [Host; 2] {
    [0, 1].map(|at| {
        let mut host = sites[at].open();
        sites[at].apply(&mut host, &sites[at].state()).unwrap();
        host
    })
}
