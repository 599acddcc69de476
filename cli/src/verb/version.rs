//! `kuafu version`.

use kuafu_dataplane::bpf::LAYOUT;
use kuafu_proto::v1::{ClusterStatus, ClusterStatusRequest, HostEntry};
use serde::Serialize;

use crate::args::Global;
use crate::ask::Controller;
use crate::doctor::KERNEL;
use crate::failure::Result;
use crate::out::{self, Output, columns};

/// Print the versions of all parts, and whether they go together
///
/// This program's; where the controller answers, also the controller's and every agent's. Parts go together where major
/// and minor version are the controller's, and the layout of maps is the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  kuafu version -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    architecture: &'static str,
    /// The oldest kernel that it runs on.
    kernel: String,
    /// Of the maps.
    layout: u32,
    /// Empty where no controller was asked.
    parts: Vec<Part>,
}

/// A part of the cluster.
#[derive(Serialize)]
struct Part {
    /// `controller`, or `agent` and its node.
    part: String,
    version: String,
    layout: u32,
    /// Whether it goes together with the controller.
    supported: bool,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        architecture: std::env::consts::ARCH,
        kernel: format!("{}.{}", KERNEL.0, KERNEL.1),
        layout: LAYOUT,
        parts: cluster(global)
            .await
            .map(|status| parts(&status))
            .unwrap_or_default(),
    };
    args.output.print(&version, table)
}

/// The cluster, where this host has the admin's papers.
async fn cluster(global: &Global) -> Option<ClusterStatus> {
    if !global.places().admin().exists() {
        return None;
    }
    let asked = async {
        let mut controller = Controller::dial(global).await?;
        let request = ClusterStatusRequest { details: false };
        let answer = controller.api.status(request).await;
        controller.unwrap(answer)
    };
    let status: anyhow::Result<ClusterStatus> = asked.await;
    status
        .inspect_err(|why| out::complain(&format!("Of this program alone: {why:#}.")))
        .ok()
}

fn parts(status: &ClusterStatus) -> Vec<Part> {
    let controller = Part {
        part: "controller".to_owned(),
        version: status.version.clone(),
        layout: status.layout,
        supported: true,
    };
    let heard = status.hosts.iter().filter(|host| !host.version.is_empty());
    let agents = heard.map(|host| Part {
        part: format!("agent {}", host.node),
        version: host.version.clone(),
        layout: host.layout,
        supported: misfit(status, host).is_none(),
    });
    std::iter::once(controller).chain(agents).collect()
}

/// Why an agent does not go together with the controller.
pub(super) fn misfit(status: &ClusterStatus, host: &HostEntry) -> Option<String> {
    if status.version.is_empty() || host.version.is_empty() {
        return None;
    }
    if series(&status.version) != series(&host.version) {
        return Some(format!(
            "version {} with a controller of {}: only versions that begin alike ({}) go together",
            host.version,
            status.version,
            series(&status.version)
        ));
    }
    let known = status.layout != 0 && host.layout != 0;
    (known && status.layout != host.layout).then(|| {
        format!(
            "its maps have layout {}, and the controller's version has {}: upgrade the older of both",
            host.layout, status.layout
        )
    })
}

/// Major and minor.
fn series(version: &str) -> &str {
    let mut dots = version.match_indices('.');
    match dots.nth(1) {
        Some((end, _)) => version.get(..end).unwrap_or(version),
        None => version,
    }
}

fn table(version: &Version) -> String {
    let mut text = format!(
        "kuafu {} for {}, Linux {} or later\n",
        version.version, version.architecture, version.kernel
    );
    if !version.parts.is_empty() {
        let rows = version.parts.iter().map(|part| {
            [
                part.part.clone(),
                part.version.clone(),
                part.layout.to_string(),
                if part.supported { "yes" } else { "NO" }.to_owned(),
            ]
        });
        text += "\n";
        text += &columns(["PART", "VERSION", "LAYOUT", "SUPPORTED"], rows);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_series_and_layout_go_together() {
        let status = ClusterStatus {
            version: "0.1.7".to_owned(),
            layout: 3,
            ..ClusterStatus::default()
        };
        let misfit = |version: &str, layout| {
            let version = version.to_owned();
            let host = HostEntry {
                version,
                layout,
                ..HostEntry::default()
            };
            misfit(&status, &host)
        };
        assert_eq!(
            [misfit("0.1.0", 3), misfit("", 0), misfit("0.1.9", 0)],
            [None, None, None]
        );
        assert!(misfit("0.2.0", 3).unwrap().contains("controller of 0.1.7"));
        assert!(misfit("0.1.0", 4).unwrap().contains("layout 4"));
    }
}
