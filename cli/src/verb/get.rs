//! `kuafu get`.

mod backend;

use kuafu_model::kinds::Kind;
use kuafu_proto::v1::{GetAnswer, GetRequest};
use serde_json::Value;

use crate::args::Global;
use crate::ask;
use crate::failure::Result;
use crate::out::{self, Format, Output, columns};

/// Print what is declared
///
/// Everything, the objects of a kind, or one. YAML and JSON can be applied again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu get
  kuafu get port
  kuafu get vpc/red -o yaml
  kuafu get service/web --backend-setup")]
pub(crate) struct Args {
    /// A kind (node, vpc, port, addresspool, prefixlist, service, accelerator), or an object such as vpc/red
    #[arg(value_name = "KIND[/NAME]", value_parser = parse)]
    what: Option<GetRequest>,
    /// Print the lines that let a Debian server receive a service's packets (mode: ipip, gue or vxlan)
    #[arg(long, requires = "what", conflicts_with = "format")]
    backend_setup: bool,
    #[command(flatten)]
    output: Output,
}

fn parse(text: &str) -> std::result::Result<GetRequest, String> {
    let (kind, name) = text
        .split_once('/')
        .map_or((text, ""), |(kind, name)| (kind, name));
    let kind: Kind = kind.parse().map_err(|error| format!("{error}"))?;
    Ok(GetRequest {
        kind: kind.word().to_owned(),
        name: name.to_owned(),
    })
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut controller = ask::controller(global).await?;
    let what = args.what.unwrap_or_default();
    if args.backend_setup {
        return out::print(&backend::setup(&mut controller, &what).await?);
    }
    let answer = controller.api.get(what).await;
    let answer = controller.unwrap(answer)?;
    let text = match args.output.format {
        Format::Table => table(&answer),
        Format::Json => answer.json.trim_end().to_owned() + "\n",
        Format::Yaml => answer.yaml,
    };
    out::print(&text)
}

/// Kind, name, and the spec as far as a line holds it.
fn table(answer: &GetAnswer) -> String {
    let objects = match serde_json::from_str(&answer.json) {
        Ok(Value::Array(objects)) => objects,
        Ok(object @ Value::Object(_)) => vec![object],
        _ => Vec::new(),
    };
    let rows = answer.objects.iter().enumerate().map(|(index, object)| {
        let spec = objects.get(index).and_then(|object| object.get("spec"));
        [
            object.kind.clone(),
            object.name.clone(),
            spec.map(inline).unwrap_or_default(),
        ]
    });
    columns(["KIND", "NAME", "SPEC"], rows)
}

/// A value on one line, as YAML would have it, cut to what a terminal shows.
fn inline(value: &Value) -> String {
    const MOST: usize = 90;
    let text = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| format!("{key}: {}", nested(value))),
        other => return nested(other),
    }
    .collect::<Vec<_>>()
    .join(", ");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn nested(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(nested).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| format!("{key}: {}", nested(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_spec_reads_like_yaml() {
        let spec = json!({"cidr": "10.0.0.0/16", "list": [{"port": 1}]});
        assert_eq!(inline(&spec), "cidr: 10.0.0.0/16, list: [{port: 1}]");
        assert!(inline(&json!({"long": "x".repeat(200)})).ends_with("xx…"));
    }

    #[test]
    fn what_is_asked_is_a_kind_or_an_object() {
        assert_eq!(parse("vpc/red").unwrap().name, "red");
        assert_eq!(parse("VPC").unwrap().kind, "vpc");
        assert!(parse("house").unwrap_err().contains("node, vpc"));
    }
}
