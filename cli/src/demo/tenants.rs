//! Two tenants with the same addresses on three hosts, who must never meet.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kuafu_lab::Namespace;
use kuafu_lab::link::{End, Offloads, veth};
use kuafu_lab::world::World;

use super::cluster::Cluster;

/// The tenants, each with its VNI.
const TENANTS: [(&str, u32); 2] = [("acme", 100), ("globex", 200)];
/// Where each of them has a machine.
pub(super) const HOSTS: [&str; 3] = ["osaka", "bahrain", "montreal"];
/// Octets in the largest packet inside a VPC.
const MTU: u32 = 1_450;
/// The port on which machines listen.
const PORT: u16 = 9_000;
/// For a connection or a datagram between any two hosts of the world.
const PATIENCE: Duration = Duration::from_secs(5);
/// For a datagram that should not come at all: longer than any way through the world.
const STRAY: Duration = Duration::from_millis(500);

/// A tenant's machine.
#[derive(Debug)]
pub(super) struct Machine {
    /// Whose it is.
    pub(super) tenant: &'static str,
    address: Ipv4Addr,
    pub(super) namespace: Namespace,
}

/// All machines, attached but not declared.
#[derive(Debug)]
pub(super) struct Tenants {
    pub(super) machines: Vec<Machine>,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// TCP connections between machines of one tenant that carried its name both ways.
    pub(super) connections: usize,
    /// Datagrams of a sweep over every address that came to a machine of the same tenant.
    pub(super) own: usize,
    /// Those that came to one of the other's.
    pub(super) foreign: usize,
}

impl Tenants {
    /// Builds and declares them, and waits until their machines reach each other.
    pub(super) fn rent(world: &World, cluster: &Cluster, limit: Duration) -> Result<Self> {
        let tenants = Self::build(world)?;
        cluster.apply(world, "tenants.yaml", &Self::manifests()?)?;
        cluster.until("the tenants' machines reach each other", limit, || {
            tenants.are_connected().then_some(())
        })?;
        Ok(tenants)
    }

    /// Builds the machines and their cables.
    fn build(world: &World) -> Result<Self> {
        let mut machines = Vec::new();
        for (tenant, _) in TENANTS {
            for (number, host) in (1..).zip(HOSTS) {
                machines.push(machine(world, tenant, host, number)?);
            }
        }
        Ok(Self { machines })
    }

    /// The VPCs and ports, as manifests.
    fn manifests() -> Result<String> {
        let mut text = String::new();
        for (tenant, vni) in TENANTS {
            writeln!(text, "---\nkind: Vpc\nmetadata: {{name: {tenant}}}")?;
            writeln!(text, "spec: {{tenant: {tenant}, cidr: 10.0.0.0/24, vni: {vni}}}")?;
            for (number, host) in (1_u8..).zip(HOSTS) {
                let mac = mac(number);
                writeln!(
                    text,
                    "---\nkind: Port\nmetadata: {{name: {tenant}-{host}}}\nspec:"
                )?;
                writeln!(
                    text,
                    "  {{vpc: {tenant}, node: {host}, address: 10.0.0.{number}, mac: \"{mac}\","
                )?;
                writeln!(text, "   interface: {tenant}0}}")?;
            }
        }
        Ok(text)
    }

    /// Whether the first machine of each tenant reaches its others.
    pub(super) fn are_connected(&self) -> bool {
        self.listeners()
            .is_ok_and(|listeners| self.talk(&listeners).is_ok())
    }

    /// Lets every machine talk to its own, and sweep every address with its mark.
    pub(super) fn try_all(&self) -> Result<Seen> {
        let connections = self.talk(&self.listeners()?)?;
        let inboxes = self.each(|_| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let mut seen = Seen {
            connections,
            ..Seen::default()
        };
        for (number, machine) in (1..).zip(&self.machines) {
            machine.sweep()?;
            // It is heard by all three of its tenant, itself included by its own stack.
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline && seen.own < number * HOSTS.len() {
                self.collect(&inboxes, &mut seen);
                std::thread::sleep(Duration::from_millis(20));
            }
            // All namespaces share the kernel's neighbour table: the next sweep needs the room.
            machine.namespace.ip(["neigh flush dev eth0 nud all"])?;
        }
        std::thread::sleep(STRAY);
        self.collect(&inboxes, &mut seen);
        Ok(seen)
    }

    fn collect(&self, inboxes: &[UdpSocket], seen: &mut Seen) {
        for (machine, inbox) in self.machines.iter().zip(inboxes) {
            let mut mark = [0; 32];
            while let Ok(length) = inbox.recv(&mut mark) {
                if mark[..length] == *machine.tenant.as_bytes() {
                    seen.own += 1;
                } else {
                    seen.foreign += 1;
                }
            }
        }
    }

    fn listeners(&self) -> Result<Vec<TcpListener>> {
        self.each(|_| {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    }

    /// One connection from the first machine of each tenant to each of its others.
    fn talk(&self, listeners: &[TcpListener]) -> Result<usize> {
        let mut connections = 0;
        for tenant in self.machines.chunks(HOSTS.len()) {
            let Some((first, others)) = tenant.split_first() else {
                continue;
            };
            for other in others {
                let at = self
                    .machines
                    .iter()
                    .position(|machine| std::ptr::eq(machine, other));
                let listener = at
                    .and_then(|at| listeners.get(at))
                    .context("a machine does not listen")?;
                exchange(first, other, listener)?;
                connections += 1;
            }
        }
        Ok(connections)
    }

    fn each<T: Send>(&self, work: impl Fn(&Machine) -> std::io::Result<T> + Sync) -> Result<Vec<T>> {
        let at = |machine: &Machine| -> Result<T> {
            let done = machine.namespace.run(|| work(machine))?;
            done.with_context(|| format!("{} {}", machine.tenant, machine.address))
        };
        self.machines.iter().map(at).collect()
    }
}

impl Machine {
    /// Sends its tenant's name to every address of the network.
    fn sweep(&self) -> Result<()> {
        let sent = self.namespace.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            for last in 1..=254 {
                // An address without a machine answers with an error, if at all.
                let _ = socket.send_to(self.tenant.as_bytes(), (Ipv4Addr::new(10, 0, 0, last), PORT));
            }
            Ok::<_, std::io::Error>(())
        })?;
        sent.with_context(|| format!("{} {}", self.tenant, self.address))
    }
}

fn mac(number: u8) -> String {
    format!("52:54:00:00:00:{number:02x}")
}

/// Builds a tenant's machine of this number at a host, and its cable.
pub(super) fn machine(world: &World, tenant: &'static str, host: &str, number: u8) -> Result<Machine> {
    let namespace = Namespace::create(world.prefix(), &format!("{tenant}-{host}"))?;
    let device = format!("{tenant}0");
    let host_end = End::new(world.netns(host)?, &device);
    veth(
        &host_end,
        &End {
            offloads: Offloads::Kernel,
            ..End::new(&namespace, "eth0")
        },
        MTU,
    )?;
    let address = Ipv4Addr::new(10, 0, 0, number);
    namespace.ip([
        format!("link set dev eth0 address {}", mac(number)),
        format!("address add {address}/24 dev eth0"),
        "link set dev lo up".to_owned(),
        "link set dev eth0 up".to_owned(),
    ])?;
    Ok(Machine {
        tenant,
        address,
        namespace,
    })
}

/// Both ends say the tenant's name and read the other's.
fn exchange(from: &Machine, to: &Machine, listener: &TcpListener) -> Result<()> {
    let target = SocketAddrV4::new(to.address, PORT);
    let mut near = from
        .namespace
        .run(|| TcpStream::connect_timeout(&target.into(), PATIENCE))??;
    let mut far = accept(listener)?;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    near.write_all(from.tenant.as_bytes())?;
    far.write_all(to.tenant.as_bytes())?;
    for (stream, name) in [(&mut far, from.tenant), (&mut near, to.tenant)] {
        let mut heard = vec![0; name.len()];
        stream.read_exact(&mut heard)?;
        ensure!(
            heard == from.tenant.as_bytes(),
            "{} met {}",
            from.tenant,
            String::from_utf8_lossy(&heard)
        );
    }
    Ok(())
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
