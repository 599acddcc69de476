//! Clients that a service's own back end lets in.

use std::net::IpAddr;

use kuafu_model::state::ServiceState;
use kuafu_pipeline::map::{AdmittedKey, AdmittedKeyV6};
use kuafu_proto::v1;

use crate::error::{Error, Result};
use crate::family::Family;
use crate::read::{View, shielded};

/// For how long a client is admitted at most.
const LONGEST_S: u32 = 86_400;

/// Admits a client to a service or an accelerator that wants it.
///
/// # Errors
/// [`Error::NotAdmitted`] where it does not, or what is asked cannot be; `Io`, among others where the table is full.
pub(crate) fn admit(view: &View<'_>, query: &v1::AdmitQuery) -> Result<v1::Admitted> {
    let refused = |why: String| Error::NotAdmitted { why };
    let client: IpAddr = query.client.parse().map_err(|_| {
        refused(format!(
            "client: {:?} is not an IP address, such as 192.0.2.7 or 2001:db8::7",
            query.client
        ))
    })?;
    if !(1..=LONGEST_S).contains(&query.ttl_s) {
        let ttl = query.ttl_s;
        return Err(refused(format!("ttl_s: {ttl} is not 1 to {LONGEST_S} seconds")));
    }
    let asks = |service: &&ServiceState| service.shield.as_ref().is_some_and(|shield| shield.admitted_only);
    let service = shielded(view.state, &query.object).filter(asks);
    let service = service.ok_or_else(|| {
        refused(format!(
            "{} admits whoever comes to this host; set spec.shield.admission: required there",
            query.object
        ))
    })?;
    if Family::of(client) != Family::of(service.local) {
        let (family, object) = (Family::of(service.local).name(), &query.object);
        return Err(refused(format!(
            "client: {client} cannot come to {object}, whose addresses are of {family}; name the client's {family} address"
        )));
    }
    let until = view.clock.jiffies()? + u64::from(query.ttl_s) * view.clock.hz();
    let vni = service.vni;
    match client {
        IpAddr::V4(client) => {
            let client = client.into();
            view.maps.admitted.set(&AdmittedKey { vni, client }, &until)?;
        }
        IpAddr::V6(_) => {
            let key = AdmittedKeyV6::new(vni, client.into());
            view.maps.admitted_v6.set(&key, &until)?;
        }
    }
    Ok(v1::Admitted {})
}
