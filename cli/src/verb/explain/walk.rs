//! A walk as people read it.

use kuafu_pipeline::Reason;
use kuafu_proto::v1::{ExplainStep, Explanation};

use super::frame::summary;

/// The steps, one a line, and what they lead to.
pub(super) fn table(explanation: &Explanation) -> String {
    let mut text = format!("On {}, program {}:\n", explanation.node, explanation.program);
    let width = explanation
        .steps
        .iter()
        .map(|step| step.stage.len())
        .max()
        .unwrap_or_default();
    for step in &explanation.steps {
        text += &format!("  {:width$}  {}\n", step.stage, told(step));
    }
    text + &verdict(explanation)
}

fn told(step: &ExplainStep) -> String {
    let mark = match step.found {
        Some(true) => "+ ",
        Some(false) => "- ",
        None => "  ",
    };
    format!("{mark}{}", step.text)
}

fn verdict(explanation: &Explanation) -> String {
    let out = if explanation.interface.is_empty() {
        String::new()
    } else {
        format!(" by {}", explanation.interface)
    };
    let leaves = || format!("  {}\n", summary(&explanation.frame));
    let reason = || {
        let meaning = Reason::from_word(&explanation.reason)
            .map(Reason::meaning)
            .unwrap_or_default();
        format!("{}: {}", explanation.reason, meaning.trim())
    };
    match explanation.verdict.as_str() {
        "pass" => "PASS: left to the host's own stack, unchanged\n".to_owned(),
        "drop" if explanation.reason.is_empty() => "CONSUMED: taken in by Kuafu itself\n".to_owned(),
        "drop" => format!("DROP {}\n", reason()),
        "answer" => format!("DROP {}\n  and answered{out}:\n{}", reason(), leaves()),
        "transmit" => format!("SENT{out}:\n{}", leaves()),
        "arrive" => format!("TAKEN IN once more{out}:\n{}", leaves()),
        "deliver" => format!(
            "DELIVERED to the port behind {}:\n{}",
            explanation.interface,
            leaves()
        ),
        other => format!("{}{out}\n{}", other.to_uppercase(), leaves()),
    }
}
