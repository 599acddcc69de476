//! A whole cluster in virtual time: the controller's core, and on every node of a world the cores of agent and prober
//! over the model of the pipeline. No kernel, no root, no sockets; the same from run to run.
//!
//! Nothing that decides is written anew here. What is not there is what lies between: TLS, gRPC and the disk. A
//! message takes as long as the wire between the two sites, keeps its order, and waits while one of them is dead, as
//! TCP would let it; none is lost.

mod pop;
mod story;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kuafu_controller::core::{Command, Core, Hello, Now, Random, RouteView, SessionId, Terms};
use kuafu_controller::serve::hear;
use kuafu_controller::store::{Memory, Store as _};
use kuafu_lab::virtual_time::World;
use kuafu_lab::wan::SiteId;
use kuafu_lab::world::{Latencies, Role, WorldSpec};
use kuafu_model::manifest::File;
use kuafu_proto::v1::agent_message::Message;

use pop::Pop;
pub(super) use story::tell;

/// How often messages are taken on and handed out.
const PACE: Duration = Duration::from_millis(10);
/// The fingerprint of an authority that signs nothing.
const AUTHORITY: [u8; 32] = [0; 32];

/// What is under way between the controller and a host, in order.
type Pipe<T> = VecDeque<(Duration, T)>;

/// A host's stream.
#[derive(Debug)]
struct Stream {
    site: SiteId,
    session: SessionId,
    down: Pipe<Command>,
    up: Pipe<Message>,
}

/// A world with a controller, whose hosts have all joined.
#[derive(Debug)]
struct Cluster {
    world: World<Pop>,
    core: Core,
    store: Memory,
    control: SiteId,
    streams: Vec<Stream>,
    tick: Duration,
    /// What the controller recorded of its choices, a line each.
    recording: Vec<String>,
}

impl Cluster {
    /// Builds the world of a file, applies the manifests, and lets every node join but `late`.
    ///
    /// # Errors
    /// Manifests that are wrong, a world without a controller.
    fn start(
        spec: &WorldSpec,
        late: Option<&str>,
        manifests: impl FnOnce(&World<Pop>) -> Result<String>,
    ) -> Result<Self> {
        let world = World::build(spec, &Latencies::aws()?, |site| Pop::new(site, spec.mtu))?;
        let control = world.with_role(Role::Controller).next();
        let control = control.context("the world has no controller")?.id();
        let mut store = Memory::default();
        let (core, writes) = Core::restore(Vec::new(), random(spec.seed))?;
        store.commit(&writes)?;
        let manifests = manifests(&world)?;
        let mut cluster = Self {
            world,
            core,
            store,
            control,
            streams: Vec::new(),
            tick: Duration::ZERO,
            recording: Vec::new(),
        };
        cluster.apply(&manifests)?;
        let nodes: Vec<_> = cluster
            .world
            .with_role(Role::Node)
            .map(|site| (site.id(), site.name().to_owned()))
            .filter(|(_, name)| late != Some(name))
            .collect();
        for (site, name) in nodes {
            cluster.join(site, &name)?;
        }
        Ok(cluster)
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// What is wrong with them.
    fn apply(&mut self, text: &str) -> Result<()> {
        let file = File {
            name: "world.yaml",
            text,
        };
        let declared = self.core.handle_apply(self.now(), &[file], Terms::default());
        let declared = declared.map_err(|error| anyhow!("{error}: {:?}", error.fields()))?;
        self.carry_out(declared.commands)
    }

    /// The pairs, as `kuafu routes` shows them.
    fn routes(&self) -> Vec<RouteView> {
        self.core.route_views()
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// What went wrong in a host.
    fn run(&mut self, time: Duration) -> Result<()> {
        let end = self.world.now() + time;
        while self.world.now() < end {
            let next = end.min(self.world.now() + PACE);
            self.world.run_until(next);
            self.collect()?;
            self.hand_down()?;
            self.hand_up()?;
            if next >= self.tick {
                let commands = self.core.handle_tick(self.now());
                self.carry_out(commands)?;
                self.tick += Duration::from_millis(self.core.next_tick_ms(self.now()));
            }
        }
        Ok(())
    }

    fn now(&self) -> Now {
        u64::try_from(self.world.now().as_millis()).unwrap_or(u64::MAX)
    }

    fn join(&mut self, site: SiteId, node: &str) -> Result<()> {
        let name = node.parse()?;
        let session = SessionId(self.streams.len() as u64 + 1);
        let (token, commands) = self.core.handle_token(0, &name, AUTHORITY)?;
        self.carry_out(commands)?;
        let commands = self
            .core
            .handle_joined(self.now(), &name, &token, node.as_bytes());
        self.carry_out(commands)?;
        let (down, up) = (Pipe::new(), Pipe::new());
        self.streams.push(Stream {
            site,
            session,
            down,
            up,
        });
        let hello = Hello {
            session,
            certified: name,
            certificate: node.as_bytes().to_vec(),
            node: node.to_owned(),
            cluster: self.core.cluster().to_owned(),
            layout: kuafu_dataplane::bpf::LAYOUT,
            last_revision: 0,
            incarnation: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let commands = self.core.handle_hello(self.now(), hello)?;
        self.carry_out(commands)
    }

    fn carry_out(&mut self, commands: Vec<Command>) -> Result<()> {
        for command in commands {
            match &command {
                Command::Commit(writes) => drop(self.store.commit(writes)?),
                Command::Record(line) => self.recording.push(line.clone()),
                Command::Snapshot(session, _) | Command::Delta(session, _) => {
                    let stream = self.streams.iter_mut().find(|stream| stream.session == *session);
                    if let Some(stream) = stream {
                        let due = self.world.now() + self.world.delay(self.control, stream.site);
                        stream.down.push_back((due, command));
                    }
                }
                Command::Close(_, refusal) => return Err(anyhow!("a stream was closed: {refusal}")),
            }
        }
        Ok(())
    }

    /// Takes on what hosts say.
    fn collect(&mut self) -> Result<()> {
        for stream in &mut self.streams {
            let said = self.world.pop(stream.site).context("no host")?.listen()?;
            if !said.is_empty() {
                let due = self.world.now() + self.world.delay(stream.site, self.control);
                stream.up.extend(said.into_iter().map(|message| (due, message)));
            }
        }
        Ok(())
    }

    fn hand_down(&mut self) -> Result<()> {
        for stream in &mut self.streams {
            while let Some(command) = arrived(&mut stream.down, &self.world, [stream.site, self.control]) {
                self.world.pop(stream.site).context("no host")?.change(&command)?;
            }
        }
        Ok(())
    }

    fn hand_up(&mut self) -> Result<()> {
        for index in 0..self.streams.len() {
            let Stream { site, session, .. } = self.streams[index];
            while let Some(message) = arrived(&mut self.streams[index].up, &self.world, [site, self.control])
            {
                let now = self.now();
                let commands = hear(&mut self.core, now, session, message);
                self.carry_out(commands)?;
            }
        }
        Ok(())
    }
}

/// The next message whose time has come, unless an end is dead.
fn arrived<T>(pipe: &mut Pipe<T>, world: &World<Pop>, ends: [SiteId; 2]) -> Option<T> {
    let alive = ends.into_iter().all(|site| world.is_alive(site));
    let next = pipe.pop_front_if(|(due, _)| alive && *due <= world.now());
    next.map(|(_, message)| message)
}

/// Bytes that anybody can guess, and that are the same from run to run.
fn random(seed: u64) -> Random {
    let mut state = seed;
    Box::new(move |bytes| {
        for byte in bytes {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_be_bytes()[0];
        }
    })
}
