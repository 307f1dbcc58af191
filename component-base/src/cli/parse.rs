//! Parses a command line with pflag's rules on top of clap.
//!
//! What clap does differently is adapted here once: boolean flags take an optional `=value`, a repeated flag
//! overrides, underscores read as dashes, and errors are upstream's one-liners.

use std::{any::TypeId, ffi::OsString};

use clap::{
    Arg, ArgAction, Args as _, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{Component, flag, logging::LoggingArgs};
use crate::version;

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Outcome<A> {
    Run(A, LoggingArgs),
    Print(String),
}

/// Parses `arguments` (program name first).
pub(super) fn command_line<A: clap::Args>(
    component: &Component,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Outcome<A>, String> {
    let command = command::<A>(component);
    let arguments = arguments.into_iter().enumerate().map(|(position, argument)| match position {
        0 => argument,
        _ => dashes(argument),
    });
    let matches = match command.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(Outcome::Print(error.to_string())),
        Err(error) => return Err(message(component, &error)),
    };
    if matches.get_one::<bool>("version") == Some(&true) {
        return Ok(Outcome::Print(format!("Kubernetes {}", version::VERSION)));
    }
    let args = A::from_arg_matches(&matches).map_err(|error| message(component, &error))?;
    let logging = LoggingArgs::from_arg_matches(&matches).map_err(|error| message(component, &error))?;
    Ok(Outcome::Run(args, logging))
}

fn command<A: clap::Args>(component: &Component) -> Command {
    let version = Arg::new("version")
        .long("version")
        .action(ArgAction::SetTrue)
        .help("Print version information and quit");
    let command = A::augment_args(Command::new(component.name));
    let command = LoggingArgs::augment_args(command)
        .name(component.name)
        .about(component.about)
        .disable_version_flag(true)
        .arg(version)
        .args_override_self(true);
    command.mut_args(go_bool)
}

/// Makes a `bool` argument behave as pflag's: `--x`, `--x=true`, `--x=false`, never `--x true`.
fn go_bool(arg: Arg) -> Arg {
    let switch = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    let of_bool = arg.get_value_parser().type_id() == TypeId::of::<bool>();
    if arg.is_positional() || !(switch || of_bool && matches!(arg.get_action(), ArgAction::Set)) {
        return arg;
    }
    // A switch always has a value; an Option<bool> set by value stays None when not given.
    let default = switch && arg.get_default_values().is_empty();
    let arg = arg
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .hide_possible_values(true)
        .value_name("BOOL")
        .value_parser(flag::boolean);
    if default { arg.default_value("false") } else { arg }
}

/// `--leader_elect=x` reads as `--leader-elect=x`.
fn dashes(argument: OsString) -> OsString {
    let Some(text) = argument.to_str() else { return argument };
    let Some(rest) = text.strip_prefix("--") else { return argument };
    let (name, value) = match rest.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (rest, None),
    };
    if !name.contains('_') {
        return argument;
    }
    let name = name.replace('_', "-");
    match value {
        Some(value) => format!("--{name}={value}").into(),
        None => format!("--{name}").into(),
    }
}

/// One line, in pflag's and cobra's words.
fn message(component: &Component, error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    // clap shows an argument as "--name <VALUE>"; pflag names the flag only.
    let argument = text(ContextKind::InvalidArg);
    let flag = argument.split([' ', '=', '[']).next().unwrap_or_default();
    let value = text(ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::UnknownArgument if flag.starts_with("--") => format!("unknown flag: {flag}"),
        ErrorKind::UnknownArgument if flag.starts_with('-') => {
            format!("unknown shorthand flag: '{}' in {argument}", flag.chars().nth(1).unwrap_or('-'))
        }
        ErrorKind::UnknownArgument => {
            format!("{:?} does not take any arguments, got [{argument:?}]", component.name)
        }
        ErrorKind::MissingRequiredArgument => {
            let names: Vec<String> = argument
                .split(", ")
                .map(|arg| {
                    arg.split([' ', '=']).next().unwrap_or_default().trim_start_matches('-').to_owned()
                })
                .map(|name| format!("{name:?}"))
                .collect();
            format!("required flag(s) {} not set", names.join(", "))
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals if value.is_empty() => {
            format!("flag needs an argument: {flag}")
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let cause = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_else(|| format!("must be one of: {}", text(ContextKind::ValidValue)));
            format!("invalid argument {value:?} for {flag:?} flag: {cause}")
        }
        _ => {
            let whole = error.to_string();
            let first = whole.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Debug, clap::Args)]
    struct Args {
        #[arg(long, default_value_t = true)]
        leader_elect: bool,
        #[arg(long)]
        allocate_node_cidrs: bool,
        #[arg(long)]
        enable_thing: Option<bool>,
        #[arg(long, default_value = "30s", value_parser = flag::duration)]
        sync_period: Duration,
        #[arg(long, value_delimiter = ',')]
        etcd_servers: Vec<String>,
        #[arg(long, default_value_t = 10259)]
        secure_port: u16,
    }

    const COMPONENT: Component = Component::new("kube-test");

    fn parse(arguments: &[&str]) -> Result<Outcome<Args>, String> {
        command_line(
            &COMPONENT,
            std::iter::once("kube-test").chain(arguments.iter().copied()).map(OsString::from),
        )
    }

    fn run(arguments: &[&str]) -> (Args, LoggingArgs) {
        match parse(arguments) {
            Ok(Outcome::Run(args, logging)) => (args, logging),
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn booleans_are_gos() {
        let (args, _) = run(&[]);
        assert!(args.leader_elect && !args.allocate_node_cidrs && args.enable_thing.is_none());
        let (args, _) = run(&["--leader-elect=false", "--allocate-node-cidrs", "--enable-thing"]);
        assert!(!args.leader_elect && args.allocate_node_cidrs && args.enable_thing == Some(true));
        let (args, _) = run(&["--leader-elect=F", "--allocate-node-cidrs=1", "--enable-thing=false"]);
        assert!(!args.leader_elect && args.allocate_node_cidrs && args.enable_thing == Some(false));
        assert_eq!(
            parse(&["--leader-elect=maybe"]).unwrap_err(),
            r#"invalid argument "maybe" for "--leader-elect" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#
        );
    }

    #[test]
    fn values_take_both_forms_and_the_last_one_wins() {
        let (args, _) = run(&["--sync-period=1m30s", "--secure_port", "1", "--secure-port=2"]);
        assert_eq!((args.sync_period, args.secure_port), (Duration::from_secs(90), 2));
        let (args, _) = run(&["--etcd-servers=http://a:1,http://b:2", "--etcd-servers", "http://c:3"]);
        assert_eq!(args.etcd_servers, ["http://a:1", "http://b:2", "http://c:3"]);
    }

    #[test]
    fn verbosity_takes_klogs_forms() {
        for arguments in [&["-v", "4"][..], &["-v=4"], &["--v=4"], &["--v", "4"], &["-v4"]] {
            assert_eq!(run(arguments).1.v, 4, "{arguments:?}");
        }
    }

    #[test]
    fn bad_flags_are_one_line() {
        for (arguments, want) in [
            (&["--foo"][..], "unknown flag: --foo"),
            (&["--foo=1"], "unknown flag: --foo"),
            (&["-z"], "unknown shorthand flag: 'z' in -z"),
            (&["serve"], r#""kube-test" does not take any arguments, got ["serve"]"#),
            (&["--secure-port"], "flag needs an argument: --secure-port"),
            (
                &["--sync-period=soon"],
                r#"invalid argument "soon" for "--sync-period" flag: time: invalid duration "soon""#,
            ),
        ] {
            assert_eq!(parse(arguments).unwrap_err(), want, "{arguments:?}");
        }
        assert!(
            parse(&["--secure-port=x"])
                .unwrap_err()
                .starts_with(r#"invalid argument "x" for "--secure-port" flag: "#)
        );
    }

    #[test]
    fn version_and_help_print() {
        match parse(&["--version"]) {
            Ok(Outcome::Print(text)) => assert_eq!(text, "Kubernetes v1.36.2+keelson.1"),
            other => panic!("{other:?}"),
        }
        match parse(&["--help"]) {
            Ok(Outcome::Print(text)) => assert!(text.contains("--leader-elect"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}
