//! The thread that has the host: it brings states into force, looks after them, and answers.
//!
//! Everything that touches maps, links and files happens here, one after the other. What arrives is a
//! [`Request`]; what happens goes out as a message for the controller.

mod trial;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use kuafu_model::HostState;
use kuafu_model::state::Announcement;
use kuafu_proto::v1::agent_message::Message;
use kuafu_proto::{Delta, v1};
use kuafu_topology::Millis;
use tokio::sync::broadcast;

use super::handle::{Change, Greeting, Request};
use super::store::{self, Staged, Version, read_state};
use super::{metrics, refusal};
use crate::announce::Announcing;
use crate::bpf::LAYOUT;
use crate::error::{Error, Result};
use crate::health::signs::{LOOK, Signs};
use crate::health::{Health, Line};
use crate::host::{Attached, Host};
use crate::live::{Kernel, Opened};
use crate::quality::Quality;
use crate::read::{DropWatch, ShieldWatch, View, answer};
use crate::sys;
use trial::Kept;
pub(super) use trial::port_of;

/// How often what probes brought home is read: an alarm is late by as much.
const DRAIN: Duration = Duration::from_millis(50);
/// How often everything else is looked after.
const SECOND: Duration = Duration::from_secs(1);
/// How often idle connections are removed.
const SWEEP: Duration = Duration::from_secs(5);

/// Where the states come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The controller; what is in force is kept in this file.
    Controller(PathBuf),
    /// This file, which an operator writes.
    File(PathBuf),
}

/// What the thread begins with.
pub(super) struct Begin {
    pub(super) node: String,
    pub(super) source: Source,
    /// The cluster that the host joined, where that is known.
    pub(super) cluster: Option<String>,
    /// The TCP port of the controller, where there is one.
    pub(super) control_port: Option<u16>,
    pub(super) events: broadcast::Sender<Message>,
    /// To those who ask servers how they are.
    pub(super) line: Line,
    /// Where files are that last as long as the host runs.
    pub(super) run: PathBuf,
    /// Whether the host may hold an address.
    pub(super) may_hold: Arc<AtomicBool>,
}

pub(super) struct Worker {
    host: Host,
    node: String,
    cluster: Option<String>,
    control_port: Option<u16>,
    source: Source,
    /// The version of the operator's file that was looked at last.
    version: Version,
    /// A state from disk that the host could not satisfy yet: an interface may still appear.
    pending: Option<HostState>,
    /// What the host goes back to, where the state in force is on trial.
    trial: Option<Kept>,
    quality: Quality,
    health: Health,
    signs: Signs,
    announcing: Announcing,
    may_hold: Arc<AtomicBool>,
    /// Whether flows could not be shared out as servers are.
    is_left_undone: bool,
    /// The zero of what is measured.
    start: Instant,
    opened: Opened,
    drops: DropWatch,
    shields: ShieldWatch,
    liveness: bool,
    /// Whether the controller was told flows of services that scale.
    told_flows: bool,
    /// Alarms that stand, by path.
    alarms: BTreeMap<u64, v1::Alarm>,
    events: broadcast::Sender<Message>,
    faults: Faults,
}

/// What is wrong, by where it comes from.
#[derive(Default)]
struct Faults {
    host: Vec<String>,
    state: Option<String>,
    /// That the host went back to what was before.
    returned: Option<String>,
    work: Option<String>,
}

impl Faults {
    fn all(&self) -> Vec<String> {
        let own = [&self.state, &self.returned, &self.work];
        let own = own.into_iter().flatten().cloned();
        self.host.iter().cloned().chain(own).collect()
    }
}

impl Worker {
    /// Brings the state on disk into force before anything is heard of a controller.
    ///
    /// # Errors
    /// What the host cannot do. A state in the operator's file that cannot be satisfied is one; the state that was in
    /// force before a reboot is tried again each second.
    pub(super) fn begin(begin: Begin, host: Host) -> Result<Self> {
        let mut worker = Self {
            quality: Quality::default(),
            health: Health::new(begin.line),
            signs: Signs::new(host.maps().target_signs.words()?),
            announcing: Announcing::start(&begin.run, matches!(begin.source, Source::Controller(_)))?,
            may_hold: begin.may_hold,
            is_left_undone: false,
            told_flows: false,
            start: Instant::now(),
            opened: Opened::with_samples(host.maps())?,
            drops: DropWatch::new(host.maps())?,
            shields: ShieldWatch::default(),
            host,
            node: begin.node,
            cluster: begin.cluster,
            control_port: begin.control_port,
            trial: None,
            source: begin.source,
            version: None,
            pending: None,
            liveness: false,
            alarms: BTreeMap::new(),
            events: begin.events,
            faults: Faults::default(),
        };
        worker.first_state()?;
        Ok(worker)
    }

    fn first_state(&mut self) -> Result<()> {
        match self.source.clone() {
            Source::File(path) => {
                self.version = store::version(&path);
                let state = read_state(&path)?;
                self.bring_into_force(&state)
            }
            Source::Controller(path) if path.exists() => {
                match read_state(&path) {
                    Ok(state) => {
                        self.restore_kept(state.revision)?;
                        self.pending = Some(state);
                    }
                    Err(error) => self.state_failed(&error),
                }
                self.go_back_in_time();
                self.retry_pending();
                Ok(())
            }
            Source::Controller(_) => Ok(()),
        }
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        let now = Instant::now();
        let (mut drain, mut second, mut sweep, mut look) = (now, now, now + SWEEP, now);
        loop {
            let next = drain.min(second).min(sweep).min(look);
            match requests.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(request) => self.answer(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            if now >= drain {
                self.share_out();
                self.drain();
                drain = on_time(drain + DRAIN, now, DRAIN);
            }
            if now >= look {
                self.look_at_signs();
                look = on_time(look + LOOK, now, LOOK);
            }
            if now >= second {
                self.each_second();
                second = on_time(second + SECOND, now, SECOND);
            }
            if now >= sweep {
                self.sweep();
                sweep = on_time(sweep + SWEEP, now, SWEEP);
            }
        }
    }

    fn answer(&mut self, request: Request) {
        // Who does not wait for the answer any more needs none.
        match request {
            Request::Change(change, trial, reply) => {
                let message = self.change(*change, trial);
                let _ = reply.send(message);
            }
            Request::Ask(query, reply) => {
                let _ = reply.send(self.view(|view| answer(view, &query)));
            }
            Request::Greet(reply) => {
                let _ = reply.send(self.greeting());
            }
            Request::Verdict(verdict) => self.health.heard(verdict),
            Request::Connected(is_so) => self.announcing.connected(is_so),
            Request::Metrics(reply) => {
                let text = self.view(metrics::text);
                let _ = reply.send(text.unwrap_or_else(|error| format!("# {error}\n")));
            }
        }
    }

    /// What questions are answered from.
    fn view<T>(&self, ask: impl FnOnce(&View<'_>) -> T) -> T {
        let programs: Vec<_> = self.host.programs().into_iter().map(program).collect();
        let faults = self.faults.all();
        ask(&View {
            name: &self.node,
            maps: self.host.maps(),
            clock: self.host.clock(),
            state: self.host.state(),
            contents: self.host.contents(),
            programs: &programs,
            incarnation: self.host.incarnation(),
            liveness: self.liveness,
            probing: self.quality.probing(),
            faults: &faults,
            measured: &|path| self.quality.measured(path),
            servers: &|| {
                self.health
                    .statuses(self.host.state(), &self.host.servers().ended)
            },
            announcements: &|| self.announcing.statuses(),
            drops: &self.drops,
            shields: &self.shields,
        })
    }

    fn greeting(&mut self) -> Greeting {
        let state = self.host.state();
        let of_state = state.map(|state| &state.cluster);
        let hello = v1::Hello {
            node: self.node.clone(),
            cluster: self.cluster.as_ref().or(of_state).cloned().unwrap_or_default(),
            layout: LAYOUT,
            last_revision: state.map_or(0, |state| state.revision),
            incarnation: self.host.incarnation(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let liveness = Message::Liveness(v1::Liveness { on: self.liveness });
        let health = Message::Health(self.health.greeting(self.host.state()));
        let alarms = self.alarms.values().copied().map(Message::Alarm);
        Greeting {
            hello,
            news: [liveness, health].into_iter().chain(alarms).collect(),
            events: self.events.subscribe(),
        }
    }

    /// What the controller sent: in force, or refused and the old one stays.
    fn change(&mut self, change: Change, trial: Option<v1::Trial>) -> Message {
        let (revision, state) = match self.changed(change) {
            Ok(state) => (state.revision, state),
            Err(refused) => return Message::Refused(refused),
        };
        match self.take(&state, trial) {
            Ok(()) => Message::Ack(v1::Ack { revision }),
            Err(error) => Message::Refused(refusal::of(revision, &error)),
        }
    }

    /// The state that a message leads to.
    fn changed(&self, change: Change) -> std::result::Result<HostState, v1::Refused> {
        match change {
            Change::Snapshot(message) => {
                let revision = message.revision;
                HostState::try_from(message).map_err(|error| refusal::of(revision, &error))
            }
            Change::Delta(message) => {
                let revision = message.to_revision;
                let state = self
                    .host
                    .state()
                    .ok_or_else(|| refusal::want_snapshot(revision))?;
                let delta = Delta::try_from(message).map_err(|error| refusal::of(revision, &error))?;
                delta.apply(state).map_err(|wrong| v1::Refused {
                    reason: wrong.to_string(),
                    ..refusal::want_snapshot(revision)
                })
            }
        }
    }

    /// Makes a state true and keeps it. It is on disk before it is in force, and in its place only then: whatever
    /// ends the agent in between, one whole state is there.
    fn bring_into_force(&mut self, state: &HostState) -> Result<()> {
        self.refuse_foreign(state)?;
        let staged = match &self.source {
            Source::Controller(path) => Some(Staged::write(path, state)?),
            Source::File(_) => None,
        };
        self.host.let_go(self.announcing.let_go(state));
        self.host.apply(state)?;
        self.announcing.order(&self.host);
        let may_hold = state.announcements.iter().any(Announcement::has_holder);
        self.may_hold.store(may_hold, Ordering::Relaxed);
        self.quality.follow(state);
        self.health
            .follow(state, self.host.contents(), &self.host.servers().down);
        self.signs.follow(state, self.host.contents());
        self.pending = None;
        self.faults.state = None;
        self.faults.returned = None;
        self.alarms
            .retain(|id, _| state.paths.iter().any(|path| path.id == *id));
        if let Some(Err(error)) = staged.map(Staged::keep) {
            self.state_failed(&error);
        }
        // To read and compile it took more than stays.
        sys::return_free_memory();
        tracing::info!(revision = state.revision, "a state is in force");
        Ok(())
    }

    fn refuse_foreign(&self, state: &HostState) -> Result<()> {
        let in_force = self.host.state().map(|state| &state.cluster);
        let clusters = self
            .cluster
            .as_ref()
            .or(in_force)
            .map(|own| ("cluster", &state.cluster, own));
        let pairs = [Some(("node", &state.node.name, &self.node)), clusters];
        for (what, found, own) in pairs.into_iter().flatten() {
            if found != own {
                return Err(Error::NotOurs {
                    what,
                    found: found.clone(),
                    own: own.clone(),
                });
            }
        }
        Ok(())
    }

    fn state_failed(&mut self, error: &Error) {
        let fault = error.to_string();
        if self.faults.state.as_ref() != Some(&fault) {
            tracing::error!(fault, "the state is not in force as it should be");
        }
        self.faults.state = Some(fault);
    }

    /// What cannot be done now is tried again with the next second.
    fn retry_pending(&mut self) {
        if let Some(state) = self.pending.take()
            && let Err(error) = self.bring_into_force(&state)
        {
            self.state_failed(&error);
            self.pending = Some(state);
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Shares flows out anew where servers are not what they were. What cannot be done is tried again with
    /// the next second.
    fn share_out(&mut self) {
        let Some(servers) = self.health.news() else {
            return;
        };
        // What has ended the host finds out itself.
        let known = self.host.servers();
        if (&servers.down, &servers.starting) != (&known.down, &known.starting)
            && let Err(error) = self.host.share_out(servers)
        {
            self.is_left_undone = true;
            self.work_failed(&error);
        }
        self.announcing.order(&self.host);
        if let Some(news) = self.health.report(self.host.state()) {
            self.tell(Message::Health(news));
        }
    }

    /// Lets servers be asked at once whose flows seem not to be answered.
    fn look_at_signs(&mut self) {
        let suspects = self.signs.look(Instant::now());
        suspects
            .into_iter()
            .for_each(|suspect| self.health.suspect(suspect));
    }

    /// Follows what may be answered for: the controller may have been heard since, or another host.
    fn announce(&mut self) {
        let let_go = self.host.state().map(|state| self.announcing.let_go(state));
        let is_other = self.host.let_go(let_go.unwrap_or_default());
        let servers = self.host.servers().clone();
        if is_other && let Err(error) = self.host.share_out(servers) {
            self.work_failed(&error);
        }
        self.announcing.order(&self.host);
    }

    fn drain(&mut self) {
        let (now, quality) = (self.now(), &mut self.quality);
        let mut live = Kernel {
            maps: self.host.maps(),
            clock: self.host.clock(),
            opened: &mut self.opened,
        };
        let news = match quality.drain(now, &mut live) {
            Ok(news) => news,
            Err(error) => return self.work_failed(&error),
        };
        if let Some(first) = news.first {
            self.tell(Message::Reports(first));
        }
        for alarm in news.alarms {
            if alarm.kind() == v1::alarm::Kind::Clear {
                self.alarms.remove(&alarm.path_id);
            } else {
                self.alarms.insert(alarm.path_id, alarm);
            }
            tracing::info!(path = alarm.path_id, kind = alarm.kind().as_str_name(), "alarm");
            self.tell(Message::Alarm(alarm));
        }
    }

    fn each_second(&mut self) {
        self.faults.work = None;
        self.go_back_in_time();
        self.retry_pending();
        self.look_at_file();
        self.health.tick();
        if std::mem::take(&mut self.is_left_undone) {
            self.health.try_again();
        }
        match self.host.tick() {
            Ok(faults) => {
                for fault in faults.iter().filter(|fault| !self.faults.host.contains(fault)) {
                    tracing::warn!(fault, "fault");
                }
                self.faults.host = faults;
            }
            Err(error) => self.work_failed(&error),
        }
        self.announce();
        if let Err(error) = self.drops.look(self.host.maps()) {
            self.work_failed(&error);
        }
        let looked = self.shields.look(self.host.maps(), self.host.contents());
        if let Err(error) = looked {
            self.work_failed(&error);
        }
        self.report();
    }

    fn report(&mut self) {
        let (now, quality) = (self.now(), &mut self.quality);
        let live = Kernel {
            maps: self.host.maps(),
            clock: self.host.clock(),
            opened: &mut self.opened,
        };
        let reports = quality.reports(now, &live);
        match reports {
            Ok(reports) => self.tell(Message::Reports(reports)),
            Err(error) => self.work_failed(&error),
        }
        let on = self.quality.liveness();
        if on != self.liveness {
            self.liveness = on;
            tracing::info!(on, "liveness");
            self.tell(Message::Liveness(v1::Liveness { on }));
        }
    }

    /// Takes a state that an operator has written since.
    fn look_at_file(&mut self) {
        let Source::File(path) = self.source.clone() else {
            return;
        };
        let version = store::version(&path);
        if version == self.version {
            return;
        }
        self.version = version;
        let state = read_state(&path);
        if let Err(error) = state.and_then(|state| self.bring_into_force(&state)) {
            self.state_failed(&error);
        }
    }

    fn sweep(&mut self) {
        match self.host.sweep() {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "idle connections are removed"),
            Err(error) => self.work_failed(&error),
        }
        match self.host.scaled_flows() {
            Ok(servers) => {
                let has_any = !servers.is_empty();
                // Who had any says once that there is none, when somebody listens.
                if has_any || self.told_flows {
                    self.tell(Message::ScaledFlows(v1::ScaledFlows { servers }));
                    self.told_flows = has_any || self.events.receiver_count() == 0;
                }
            }
            Err(error) => self.work_failed(&error),
        }
    }

    fn work_failed(&mut self, error: &Error) {
        let fault = error.to_string();
        if self.faults.work.as_ref() != Some(&fault) {
            tracing::warn!(fault, "fault");
        }
        self.faults.work = Some(fault);
    }

    /// Says something to the controller, if it listens.
    fn tell(&self, message: Message) {
        let _ = self.events.send(message);
    }
}

/// The next time of something regular; what was missed is left out.
fn on_time(next: Instant, now: Instant, interval: Duration) -> Instant {
    if next > now { next } else { now + interval }
}

fn program(attached: Attached) -> v1::ProgramStatus {
    v1::ProgramStatus {
        name: attached.name,
        interface: attached.interface,
        hook: attached.hook.to_owned(),
        id: attached.id,
    }
}
