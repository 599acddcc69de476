//! `kuafu completions`.

use std::io::{Result as Io, Write};

use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::failure::Result;
use crate::out;

/// Print a shell's completions, or the manual page
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu completions bash > /usr/share/bash-completion/completions/kuafu
  kuafu completions man > kuafu.1 && man ./kuafu.1")]
pub(crate) struct Args {
    /// For what
    #[arg(value_enum, value_name = "SHELL")]
    of: Of,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Of {
    Bash,
    Zsh,
    Fish,
    Elvish,
    #[value(name = "powershell")]
    PowerShell,
    /// The manual page, in roff
    Man,
}

pub(crate) fn run(args: Args) -> Result {
    let mut command = crate::args::Args::command();
    let shell = match args.of {
        Of::Bash => Shell::Bash,
        Of::Zsh => Shell::Zsh,
        Of::Fish => Shell::Fish,
        Of::Elvish => Shell::Elvish,
        Of::PowerShell => Shell::PowerShell,
        Of::Man => return out::print(&String::from_utf8_lossy(&man(command)?)),
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "kuafu", &mut text);
    out::print(&String::from_utf8_lossy(&text))
}

/// The manual page: the program, then each verb.
fn man(mut command: Command) -> Io<Vec<u8>> {
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone()).section("1").manual("Kuafu");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        describe(verb, &mut page)?;
    }
    exit_status().to_writer(&mut page)?;
    Ok(page)
}

/// A verb, and the verbs below it.
fn describe(verb: &Command, page: &mut Vec<u8>) -> Io<()> {
    let below: Vec<&Command> = verb
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help")
        .collect();
    if !below.is_empty() {
        return below.into_iter().try_for_each(|verb| describe(verb, page));
    }
    let name = verb.get_bin_name().unwrap_or(verb.get_name());
    let mut head = Roff::new();
    head.control("SH", [name.to_uppercase().as_str()]);
    let about = verb
        .get_long_about()
        .or(verb.get_about())
        .map(ToString::to_string);
    head.text([roman(about.unwrap_or_default())]);
    head.to_writer(page)?;
    // What every verb understands is said once, at the top.
    let own = verb.clone().mut_args(|arg| {
        let of_all = ["root", "controller", "verbose", "help"].contains(&arg.get_id().as_str());
        arg.hide(of_all)
    });
    let man = Man::new(own);
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    let options = String::from_utf8_lossy(&options).replace(".SH OPTIONS", ".SS Options");
    page.write_all(options.as_bytes())?;
    if let Some(examples) = verb.get_after_help() {
        let mut roff = Roff::new();
        roff.control("SS", ["Examples"]).control("nf", []);
        for line in examples.to_string().lines().skip(1) {
            roff.text([bold(line)]);
        }
        roff.control("fi", []);
        roff.to_writer(page)?;
    }
    Ok(())
}

fn exit_status() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    roff.text([roman(
        "0: done. 1: failed. 2: asked wrongly. 3: this machine cannot; kuafu doctor says what it lacks.",
    )]);
    roff
}
