//! The manifests of the demonstration, written from the world that was built.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use kuafu_lab::world::{Role, Site, Sites};

/// The UDP port of every game server.
pub(super) const GAME_PORT: u16 = 7_777;

/// A player and the server that it plays on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Game {
    /// What the accelerator is called.
    pub(super) name: &'static str,
    /// The player's site.
    pub(super) player: &'static str,
    /// The node where its packets enter.
    pub(super) entry: &'static str,
    /// The node nearest to the server.
    pub(super) exit: &'static str,
    /// The server's site.
    pub(super) server: &'static str,
}

/// The pairs of the table; in the last one direct is best.
pub(super) const GAMES: [Game; 5] = [
    game(
        "osaka-cape-town",
        "client-osaka",
        "osaka",
        "cape-town",
        "server-cape",
    ),
    game(
        "hong-kong-cape-town",
        "client-hk",
        "hong-kong",
        "cape-town",
        "server-cape",
    ),
    game(
        "bahrain-calgary",
        "client-bahrain",
        "bahrain",
        "calgary",
        "server-calgary",
    ),
    game(
        "calgary-sao-paulo",
        "client-calgary",
        "calgary",
        "sao-paulo",
        "server-sao",
    ),
    game(
        "calgary-oregon",
        "client-calgary",
        "calgary",
        "oregon",
        "server-oregon",
    ),
];

const fn game(
    name: &'static str,
    player: &'static str,
    entry: &'static str,
    exit: &'static str,
    server: &'static str,
) -> Game {
    Game {
        name,
        player,
        entry,
        exit,
        server,
    }
}

impl Game {
    /// Where a player sends without Kuafu.
    pub(super) fn direct(&self, world: &Sites) -> Result<SocketAddrV4> {
        Ok(SocketAddrV4::new(
            world.site(self.server)?.address().public,
            GAME_PORT,
        ))
    }

    /// Where a player sends with Kuafu: the entry's accelerated address for this game.
    pub(super) fn accelerated(&self, world: &Sites) -> Result<SocketAddrV4> {
        Ok(SocketAddrV4::new(
            self.address(world.site(self.entry)?)?.0,
            GAME_PORT,
        ))
    }

    /// The accelerated address, as players and as the entry see it. Games that share an entry have one each.
    fn address(&self, entry: &Site) -> Result<(Ipv4Addr, Ipv4Addr)> {
        let earlier = GAMES.iter().take_while(|other| other.name != self.name);
        let number = earlier.filter(|other| other.entry == self.entry).count();
        let spare = entry.spare().get(number);
        let spare = spare.ok_or_else(|| anyhow::anyhow!("{} has too few spare addresses", entry.name()))?;
        Ok((spare.public, spare.local))
    }
}

/// Every node.
pub(super) fn nodes(world: &Sites) -> Result<String> {
    let mut text = String::new();
    for site in world.with_role(Role::Node) {
        node(&mut text, site)?;
    }
    Ok(text)
}

/// One game's accelerator.
pub(super) fn accelerated(world: &Sites, game: &Game) -> Result<String> {
    let mut text = String::new();
    accelerator(&mut text, game, world)?;
    Ok(text)
}

/// Every node, and an accelerator for each game.
pub(super) fn manifests(world: &Sites) -> Result<String> {
    let mut text = nodes(world)?;
    for game in &GAMES {
        text += &accelerated(world, game)?;
    }
    Ok(text)
}

fn node(text: &mut String, site: &Site) -> Result<()> {
    let (name, region, address) = (site.name(), site.region(), site.address());
    writeln!(text, "---\nkind: Node\nmetadata: {{name: {name}}}\nspec:")?;
    writeln!(text, "  region: {region}\n  site: {region}\n  provider: aws")?;
    if let Some(place) = site.coordinates() {
        let (latitude, longitude) = (place.latitude, place.longitude);
        writeln!(
            text,
            "  coordinates: {{latitude: {latitude}, longitude: {longitude}}}"
        )?;
    }
    writeln!(
        text,
        "  address: {{local: {}, public: {}}}",
        address.local, address.public
    )?;
    Ok(())
}

fn accelerator(text: &mut String, game: &Game, world: &Sites) -> Result<()> {
    let Game {
        name, entry, exit, ..
    } = game;
    let (public, local) = game.address(world.site(entry)?)?;
    let (server, region) = (game.direct(world)?, world.site(exit)?.region());
    let port = server.port();
    writeln!(
        text,
        "---\nkind: AddressPool\nmetadata: {{name: {name}}}\nspec:\n  reach: routed"
    )?;
    writeln!(
        text,
        "  addresses: [{{node: {entry}, public: {public}, local: {local}}}]"
    )?;
    writeln!(text, "---\nkind: Service\nmetadata: {{name: {name}}}")?;
    writeln!(
        text,
        "spec: {{mode: nat, targets: [{{address: {}, port: {port}}}]}}",
        server.ip()
    )?;
    writeln!(
        text,
        "---\nkind: Accelerator\nmetadata: {{name: {name}}}\nspec:\n  pool: {name}"
    )?;
    writeln!(text, "  entries: [{entry}]\n  class: game")?;
    writeln!(
        text,
        "  listeners: [{{protocol: udp, port: {port}}}, {{protocol: tcp, port: {port}}}]"
    )?;
    writeln!(
        text,
        "  groups: [{{service: {name}, region: {region}, dial: 100}}]"
    )?;
    Ok(())
}
