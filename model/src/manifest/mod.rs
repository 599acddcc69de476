//! Manifests: YAML text to [kinds](crate::kinds), and the intent that they add up to.
//!
//! [`parse`] reads files of one or more YAML documents, each an object (or a list of objects, as JSON output has
//! it). [`Intent::apply`] adds them to what is declared already, and [`Intent::delete`] takes objects away; both
//! give the new intent, or every error at once and no change. Each error names file, line and field, and says what
//! is allowed.

mod change;
mod check;
mod error;
mod intent;
mod locations;
mod place;
mod targets;
mod tree;
mod write;

use std::sync::Arc;

use crate::kinds::{
    AcceleratorSpec, AddressPoolSpec, Invalid, Kind, Metadata, NodeSpec, Object, PortSpec, PrefixListSpec,
    Resource, ServiceSpec, Text, VpcSpec,
};

pub use change::{Applied, Change, Outcome};
pub use error::{Conflict, DeleteError, ManifestError, Problem, WriteError};
pub use intent::Intent;
pub(crate) use locations::Locations;
pub(crate) use place::{Field, Fields, Place};
pub use write::{to_json, to_yaml};

use place::Report;
use tree::Node;

/// A manifest file: its name, as errors show it, and its text.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// The name that errors show.
    pub name: &'a str,
    /// YAML 1.2 (JSON is a part of it), any number of documents.
    pub text: &'a str,
}

/// An object as a file declares it.
#[derive(Clone, Debug)]
pub struct Manifest {
    object: Object,
    file: Arc<str>,
    root: Node,
}

impl Manifest {
    /// The declared object.
    #[must_use]
    pub const fn object(&self) -> &Object {
        &self.object
    }

    /// The file that declares it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line where the object begins, from 1.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.root.line
    }

    /// An error at one of the object's fields, such as `spec.listeners[0].port`.
    fn error(&self, field: &str, problem: impl Into<Problem>) -> ManifestError {
        ManifestError {
            file: Arc::clone(&self.file),
            line: self.root.line_of(field),
            field: field.to_owned(),
            problem: problem.into(),
        }
    }
}

/// Reads the objects that files declare, in their order.
///
/// # Errors
/// All that is wrong with each single object, in the order of the files, then of the lines. What a file has after
/// a syntax error is not looked at.
pub fn parse(files: &[File<'_>]) -> Result<Vec<Manifest>, Vec<ManifestError>> {
    let (mut manifests, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        let name: Arc<str> = file.name.into();
        let report = Report::new(Arc::clone(&name));
        match tree::parse(file.text) {
            Ok(roots) => manifests.extend(roots.into_iter().filter_map(|root| {
                let object = Place::root(&root, &report).read()?;
                Some(Manifest {
                    object,
                    file: Arc::clone(&name),
                    root,
                })
            })),
            Err((line, message)) => report.add(line, "", Problem::Syntax(message)),
        }
        errors.extend(report.into_errors());
    }
    if errors.is_empty() {
        Ok(manifests)
    } else {
        Err(errors)
    }
}

impl Field for Object {
    const EXPECTS: &'static str = "an object: a mapping with kind, metadata and spec";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let kind = fields.required("kind");
            let metadata = fields.required("metadata");
            let Some(KindName(kind)) = kind else {
                fields.skip("spec");
                return None;
            };
            match kind {
                Kind::Node => object::<NodeSpec>(fields, metadata),
                Kind::Vpc => object::<VpcSpec>(fields, metadata),
                Kind::Port => object::<PortSpec>(fields, metadata),
                Kind::AddressPool => object::<AddressPoolSpec>(fields, metadata),
                Kind::PrefixList => object::<PrefixListSpec>(fields, metadata),
                Kind::Service => object::<ServiceSpec>(fields, metadata),
                Kind::Accelerator => object::<AcceleratorSpec>(fields, metadata),
            }
        })
    }
}

fn object<S: Field>(fields: &Fields<'_>, metadata: Option<Metadata>) -> Option<Object>
where
    Resource<S>: Into<Object>,
{
    let spec: Option<S> = fields.required("spec");
    Some(
        Resource {
            metadata: metadata?,
            spec: spec?,
        }
        .into(),
    )
}

/// A kind as manifests write it.
struct KindName(Kind);

impl Text for KindName {
    const FORM: &'static str = "one of: Node, Vpc, Port, AddressPool, PrefixList, Service, Accelerator";
}

impl std::str::FromStr for KindName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const LATER: &[&str] = &["Tenant", "Subnet", "SecurityGroup", "Peering"];
        let kinds = Kind::ALL.iter().copied();
        if let Some(kind) = kinds.clone().find(|kind| kind.name() == text) {
            return Ok(Self(kind));
        }
        let expects = Self::FORM;
        let why = match error::nearest(text, kinds.map(Kind::name)) {
            _ if LATER.contains(&text) => format!("is not supported yet; expected {expects}"),
            Some(near) => format!("is no kind (did you mean {near}?); expected {expects}"),
            None => format!("is no kind; expected {expects}"),
        };
        Err(Invalid::new(text, why))
    }
}
