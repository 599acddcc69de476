//! Shields as they are declared, and the hosts that have them.

use kuafu_model::kinds::{Admission, Kind, Name, ObjectRef, PoolAddress, Shield, ShieldMode};

use super::Core;

/// A shield and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ShieldView<'c> {
    /// As it is declared.
    pub shield: &'c Shield,
    /// The nodes where the packets enter that it judges, in order.
    pub entries: Vec<&'c Name>,
}

/// Why there is no answer about a shield.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShieldError {
    /// Nothing is declared by that name.
    #[error("there is no {object}")]
    NoSuchObject {
        /// The object asked about.
        object: ObjectRef,
    },
    /// It has no shield.
    #[error("{object} has no shield; a service with a pool or an accelerator has one by its spec.shield")]
    NoShield {
        /// The object asked about.
        object: ObjectRef,
    },
    /// Nobody has to be admitted.
    #[error("{object} lets clients in that are not admitted ({why}); set spec.shield.{fix}")]
    NoAdmission {
        /// The object.
        object: ObjectRef,
        /// What it says.
        why: &'static str,
        /// What it should say.
        fix: &'static str,
    },
}

impl Core {
    /// The shield of a service or an accelerator.
    ///
    /// # Errors
    /// [`ShieldError`], in words.
    pub fn shield(&self, object: &ObjectRef) -> Result<ShieldView<'_>, ShieldError> {
        let (intent, name) = (&self.intent, &object.name);
        let none = || ShieldError::NoSuchObject {
            object: object.clone(),
        };
        let (shield, addresses): (Option<&Shield>, Vec<&PoolAddress>) = match object.kind {
            Kind::Service => {
                let spec = &intent.services().get(name).ok_or_else(none)?.spec;
                let pool = spec.pool.as_ref();
                let pool = pool.and_then(|pool| intent.address_pools().get(pool));
                let addresses = pool.into_iter().flat_map(|pool| &pool.spec.addresses);
                (spec.shield.as_ref(), addresses.collect())
            }
            Kind::Accelerator => {
                let accelerator = intent.accelerators().get(name).ok_or_else(none)?;
                let addresses = intent.accelerated_addresses(accelerator);
                (accelerator.spec.shield.as_ref(), addresses.collect())
            }
            _ => (None, Vec::new()),
        };
        let shield = shield.ok_or_else(|| ShieldError::NoShield {
            object: object.clone(),
        })?;
        let entries = addresses.into_iter().flat_map(|address| address.nodes.iter());
        let mut entries: Vec<&Name> = entries.collect();
        entries.sort();
        entries.dedup();
        Ok(ShieldView { shield, entries })
    }

    /// Where a client is to be admitted.
    ///
    /// # Errors
    /// [`ShieldError`], in words: among others that nobody has to be.
    pub fn admitting(&self, object: &ObjectRef) -> Result<Vec<&Name>, ShieldError> {
        let ShieldView { shield, entries } = self.shield(object)?;
        let (why, fix) = match (shield.mode, shield.admission) {
            (ShieldMode::Off, _) => ("its mode is off", "mode to another"),
            (_, Admission::Open) => ("its admission is open", "admission: required"),
            (_, Admission::Required) => return Ok(entries),
        };
        let object = object.clone();
        Err(ShieldError::NoAdmission { object, why, fix })
    }
}
