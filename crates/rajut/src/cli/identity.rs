//! `rajut identity`: whom the mesh believes, the change to another root, and certificates for tests.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use rajut_local::client::{ClientError, ControlClient};
use rajut_types::Principal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{OutputFormat, WrongUsage, answer, block_on, mesh::Place, top::plain, verify::enrolled};
use crate::output::{self, Format, Table};

/// `rajut identity`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum IdentityCommand {
    /// Roots, the issuer, and how far a change to another root is
    Status(OutputFormat),
    /// Go to another root while everything runs, or on with a change that is under way
    RotateRoot(RotateRootArgs),
    /// A certificate of a workload's identity, for tests; it is on record
    Issue(IssueArgs),
    /// Believe a certificate no longer, or an identity with all its certificates
    Revoke(RevokeArgs),
    /// Let a revoked identity have certificates again
    Reinstate(ReinstateArgs),
    /// What is revoked
    Revoked(OutputFormat),
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Why {
    Unspecified,
    KeyCompromise,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rajut identity revoke 6c1f0a…                               this certificate; its workload gets another one
  rajut identity revoke spiffe://cluster.local/ns/clinic/sa/web --reason key-compromise
                                                              all of them, and no new one until it is reinstated")]
pub(crate) struct RevokeArgs {
    /// A serial number, or spiffe://…
    #[arg(value_name = "WHAT")]
    what: String,
    /// Why
    #[arg(long, value_enum, default_value = "unspecified")]
    reason: Why,
    #[command(flatten)]
    output: OutputFormat,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReinstateArgs {
    /// spiffe://…
    #[arg(value_name = "IDENTITY")]
    identity: String,
    #[command(flatten)]
    output: OutputFormat,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Until {
    /// Everybody believes both roots
    Trust,
    /// Everybody's certificate is under the new root
    Reissue,
}

impl Until {
    fn name(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Reissue => "reissue",
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each step begins when every proxy has acknowledged the one before: both roots are believed, certificates are reissued
under the new one, the old one is retired. The control plane does it by itself: this command may be interrupted, and the
control plane may be restarted; both go on where it was.

Examples:
  rajut identity rotate-root                    to a root that is made now
  rajut identity rotate-root --from new-cacerts to an issuer of your own (ca-cert.pem, ca-key.pem, root-cert.pem)
  rajut identity rotate-root --until reissue    hold there; the same command without it goes on")]
pub(crate) struct RotateRootArgs {
    /// The folder of the new issuer, in the layout of Istio's cacerts; without it a root is made
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Hold when this step is done, until the command is run again
    #[arg(long, value_enum, value_name = "STEP")]
    until: Option<Until>,
    /// Do not wait for proxies that should run and are not connected: they may be refused until they are back
    #[arg(long)]
    without_away: bool,
    /// Only go on with a change that is under way, begin none
    #[arg(long, conflicts_with = "from")]
    resume: bool,
    /// How long to look on, in seconds; the change itself goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    output: OutputFormat,
}

#[derive(Debug, clap::Args)]
pub(crate) struct IssueArgs {
    /// Whose: NAMESPACE/SERVICE-ACCOUNT or spiffe://…
    #[arg(long = "as", value_name = "IDENTITY")]
    identity: String,
    /// Where cert-chain.pem, key.pem and root-cert.pem are written, for the owner alone
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What it lives, in seconds; the issuer grants no more than it grants a workload
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    life: u64,
    #[command(flatten)]
    output: OutputFormat,
}

pub(crate) fn identity(place: &Place, command: &IdentityCommand) -> anyhow::Result<ExitCode> {
    match command {
        IdentityCommand::Status(output) => {
            let control = place.control()?;
            let status = block_on(async { Ok(look(&control).await?) })?;
            show(&status, *output)?;
            Ok(ExitCode::SUCCESS)
        }
        IdentityCommand::RotateRoot(args) => rotate(place, args),
        IdentityCommand::Issue(args) => issue(place, args),
        IdentityCommand::Revoke(args) => {
            let what = if args.what.starts_with("spiffe://") {
                let principal: Principal = args.what.parse().map_err(|_| not_an_identity(&args.what))?;
                json!({"identity": principal.spiffe_id(), "reason": args.reason.name()})
            } else {
                json!({"serial": serial(&args.what)?, "reason": args.reason.name()})
            };
            change(place, &what, args.output)
        }
        IdentityCommand::Reinstate(args) => {
            let principal: Principal = args
                .identity
                .parse()
                .map_err(|_| not_an_identity(&args.identity))?;
            let what = json!({"identity": principal.spiffe_id(), "reinstate": true});
            change(place, &what, args.output)
        }
        IdentityCommand::Revoked(output) => {
            let control = place.control()?;
            let revoked =
                block_on(async { Ok(control.json("GET", "/v1/identity/revocations", None).await?) })?;
            match output.format {
                Format::Json => output::print_json(&revoked)?,
                Format::Text => output::print(&revoked_text(&revoked))?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn not_an_identity(text: &str) -> WrongUsage {
    WrongUsage(format!(
        "`{text}` is no identity of the form spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT"
    ))
}

/// As the record has serial numbers: openssl writes capitals, and others colons between.
fn serial(text: &str) -> Result<String, WrongUsage> {
    let plain: String = text.chars().filter(|one| *one != ':').collect();
    let plain = plain.to_ascii_lowercase();
    if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(WrongUsage(format!(
            "`{text}` is neither a serial number (hexadecimal) nor spiffe://…"
        )));
    }
    Ok(plain.trim_start_matches('0').to_owned())
}

/// How long acknowledgements are waited for.
const ACKNOWLEDGE: Duration = Duration::from_secs(30);

/// Exit status 1 where a proxy has not acknowledged.
fn change(place: &Place, what: &Value, output: OutputFormat) -> anyhow::Result<ExitCode> {
    let control = place.control()?;
    let changed = block_on(async {
        let path = format!(
            "/v1/identity/revocations?timeoutSeconds={}",
            ACKNOWLEDGE.as_secs()
        );
        let limit = ACKNOWLEDGE + Duration::from_secs(10);
        let answer = control.call("POST", &path, what.to_string(), limit).await?;
        Ok(serde_json::from_slice::<Value>(&answer)?)
    })?;
    let left = |member: &str| changed[member].as_array().map_or(0, Vec::len);
    let is_done = left("pending") == 0 && left("rejected") == 0;
    match output.format {
        Format::Json => output::print_json(&changed)?,
        Format::Text => {
            let serials = changed["serials"].as_array().into_iter().flatten();
            let mut text = String::new();
            for serial in serials.filter_map(Value::as_str) {
                append!(text, "revoked {}\n", plain(serial));
            }
            append!(
                text,
                "acknowledged by {} of {} proxies\n",
                changed["acknowledged"],
                changed["affected"]
            );
            for silent in changed["pending"].as_array().into_iter().flatten() {
                append!(
                    text,
                    "no answer from {}\n",
                    plain(silent.as_str().unwrap_or_default())
                );
            }
            output::print(&text)?;
        }
    }
    Ok(answer(is_done))
}

fn revoked_text(revoked: &Value) -> String {
    let told = |value: &Value| plain(value.as_str().unwrap_or_default());
    let mut table = Table::new(&["REVOKED", "IDENTITY", "REASON", "SINCE", "UNTIL"]);
    for one in revoked["identities"].as_array().into_iter().flatten() {
        table.row([
            "identity".to_owned(),
            told(&one["identity"]),
            told(&one["reason"]),
            told(&one["since"]),
            "reinstated".to_owned(),
        ]);
    }
    for one in revoked["certificates"].as_array().into_iter().flatten() {
        table.row([
            told(&one["serial"]),
            told(&one["identity"]),
            told(&one["reason"]),
            told(&one["since"]),
            told(&one["notAfter"]),
        ]);
    }
    table.render()
}

async fn look(control: &ControlClient) -> Result<Value, ClientError> {
    control.json("GET", "/v1/identity", None).await
}

fn show(status: &Value, output: OutputFormat) -> anyhow::Result<()> {
    match output.format {
        Format::Json => output::print_json(status),
        Format::Text => output::print(&text(status)),
    }
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

fn rotate(place: &Place, args: &RotateRootArgs) -> anyhow::Result<ExitCode> {
    let control = place.control()?;
    let from = args.from.as_deref().map(std::path::absolute).transpose()?;
    let wanted = json!({
        "from": from,
        "hold": args.until.map(Until::name),
        "withoutAway": args.without_away,
        "resume": args.resume,
    });
    let (status, is_over) = block_on(async {
        let begun = control
            .json("POST", "/v1/identity/rotation", Some(&wanted))
            .await
            .context("the mesh does not go to another root")?;
        look_on(&control, begun, Duration::from_secs(args.timeout)).await
    })?;
    show(&status, args.output)?;
    Ok(answer(is_over))
}

/// Looks until the change is over, or holds for the operator, or the time is up. A control plane that is away comes back.
async fn look_on(control: &ControlClient, begun: Value, limit: Duration) -> anyhow::Result<(Value, bool)> {
    let deadline = Instant::now() + limit;
    let (mut status, mut told) = (begun, String::new());
    loop {
        let rotation = &status["rotation"];
        if rotation.is_null() || rotation["waitsFor"] == "operator" {
            return Ok((status, true));
        }
        let now = progress(rotation);
        if now != told && output::is_terminal() {
            output::warn(&now);
        }
        told = now;
        if Instant::now() > deadline {
            return Ok((status, false));
        }
        tokio::time::sleep(LOOK).await;
        match look(control).await {
            Ok(newer) => status = newer,
            Err(ClientError::Connect { .. } | ClientError::Exchange { .. } | ClientError::Timeout { .. }) => {
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn step_text(step: &str) -> &'static str {
    match step {
        "trust" => "1 of 3: both roots are believed",
        "reissue" => "2 of 3: certificates are reissued under the new root",
        "retire" => "3 of 3: the old root is retired",
        _ => "an unknown step",
    }
}

fn progress(rotation: &Value) -> String {
    let proxies = rotation["proxies"].as_array();
    let all = proxies.map_or(0, Vec::len);
    let done = proxies.into_iter().flatten();
    let done = done.filter(|proxy| proxy["standing"] == "acknowledged").count();
    let step = step_text(rotation["step"].as_str().unwrap_or_default());
    format!("step {step}; {done} of {all} proxies have acknowledged")
}

/// Sooner is said.
const ENDS_SOON: u64 = 90 * 86_400;

fn text(status: &Value) -> String {
    let told = |value: &Value| plain(value.as_str().unwrap_or_default());
    let mut table = Table::new(&["ROOT", "UNTIL", "SHA-256", ""]);
    let mut soon = false;
    for root in status["roots"].as_array().into_iter().flatten() {
        let is_issuing = root["issuing"] == true;
        soon |= is_issuing && root["secondsLeft"].as_u64().is_some_and(|left| left < ENDS_SOON);
        let sha256 = told(&root["sha256"]);
        table.row([
            told(&root["subject"]),
            told(&root["notAfter"]),
            sha256.chars().take(16).collect(),
            if is_issuing { "issuing" } else { "believed" }.to_owned(),
        ]);
    }
    let mut text = table.render();
    if soon {
        text.push_str(
            "\nthe root ends soon: `rajut identity rotate-root` goes to another one while everything runs\n",
        );
    }
    let rotation = &status["rotation"];
    if rotation.is_null() {
        return text;
    }
    append!(text, "\n{}\n", progress(rotation));
    match rotation["waitsFor"].as_str() {
        Some("operator") => text.push_str("it holds here; `rajut identity rotate-root --resume` goes on\n"),
        Some("proxies") => {
            let mut table = Table::new(&["WAITS FOR", "STANDING", "REASON"]);
            let proxies = rotation["proxies"].as_array();
            for proxy in proxies.into_iter().flatten() {
                if proxy["standing"] != "acknowledged" {
                    let name = format!("{}.{}", told(&proxy["name"]), told(&proxy["namespace"]));
                    table.row([name, told(&proxy["standing"]), told(&proxy["reason"])]);
                }
            }
            text.push_str(&table.render());
        }
        _ => {}
    }
    text
}

fn issue(place: &Place, args: &IssueArgs) -> anyhow::Result<ExitCode> {
    let mesh = place.running()?;
    let wanted = whose(&args.identity)?;
    let life = Duration::from_secs(args.life);
    let (namespace, account) = (&wanted.namespace, &wanted.account);
    let issued = block_on(enrolled(
        place,
        &mesh,
        (namespace, account, "by-the-operator"),
        life,
    ))?;
    if let Some(principal) = &wanted.principal
        && *principal != issued.principal
    {
        bail!("this mesh issues {}, not {principal}", issued.principal);
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.out)
        .with_context(|| args.out.display().to_string())?;
    let files = [
        ("cert-chain.pem", issued.chain_pem()),
        ("key.pem", issued.key.secret_pem()),
        ("root-cert.pem", issued.roots.to_pem()),
    ];
    for (name, text) in &files {
        write(&args.out.join(name), text)?;
    }
    let until = rajut_runtime::clock::rfc3339(issued.not_after);
    let shown = json!({
        "identity": issued.principal.spiffe_id(),
        "serial": issued.serial,
        "notAfter": until,
        "folder": args.out,
    });
    match args.output.format {
        Format::Json => output::print_json(&shown)?,
        Format::Text => output::print_line(&format!(
            "{} until {until}, serial {}, in {}",
            issued.principal,
            issued.serial,
            args.out.display()
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())
    };
    write().with_context(|| path.display().to_string())
}

/// An identity as it is asked for.
#[derive(Debug)]
struct Whose {
    namespace: String,
    account: String,
    principal: Option<Principal>,
}

fn whose(text: &str) -> Result<Whose, WrongUsage> {
    let wrong = || {
        WrongUsage(format!(
            "`{text}` is neither NAMESPACE/SERVICE-ACCOUNT nor spiffe://…"
        ))
    };
    if text.starts_with("spiffe://") {
        let principal: Principal = text.parse().map_err(|_| wrong())?;
        return Ok(Whose {
            namespace: principal.namespace().to_owned(),
            account: principal.service_account().to_owned(),
            principal: Some(principal),
        });
    }
    let (namespace, account) = text.split_once('/').ok_or_else(wrong)?;
    if namespace.is_empty() || account.is_empty() || account.contains('/') {
        return Err(wrong());
    }
    Ok(Whose {
        namespace: namespace.to_owned(),
        account: account.to_owned(),
        principal: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(rotation: &Value) -> Value {
        json!({
            "roots": [
                {"subject": "CN=old\u{1b}[2J", "notAfter": "2036-11-22T10:00:00Z", "sha256": "aabbccddeeff00112233", "issuing": true,
                 "secondsLeft": 86_400},
                {"subject": "CN=new", "notAfter": "2036-11-23T10:00:00Z", "sha256": "11", "issuing": false, "secondsLeft": 1},
            ],
            "rotation": rotation,
        })
    }

    #[test]
    fn the_text_names_whom_a_change_waits_for_and_that_the_root_ends() {
        let rotation = json!({"step": "trust", "waitsFor": "proxies", "proxies": [
            {"name": "web-0", "namespace": "clinic", "standing": "acknowledged", "reason": null},
            {"name": "web-1", "namespace": "clinic", "standing": "refused", "reason": "no"},
        ]});
        let text = text(&status(&rotation));
        assert!(
            !text.contains('\u{1b}') && text.contains("aabbccddeeff0011  issuing"),
            "{text}"
        );
        assert!(text.contains("the root ends soon"), "{text}");
        assert!(
            text.contains("step 1 of 3: both roots are believed; 1 of 2 proxies"),
            "{text}"
        );
        assert!(
            text.contains("web-1.clinic  refused   no") && !text.contains("web-0"),
            "{text}"
        );
    }

    #[test]
    fn a_held_change_says_how_it_goes_on_and_none_says_nothing() {
        let held = json!({"step": "reissue", "waitsFor": "operator", "proxies": []});
        assert!(text(&status(&held)).contains("rotate-root --resume"));
        assert!(!text(&status(&Value::Null)).contains("step"));
    }

    #[test]
    fn identities_are_taken_in_two_forms_and_no_other() {
        let short = whose("clinic/web").unwrap();
        let long = whose("spiffe://cluster.local/ns/clinic/sa/web").unwrap();
        assert_eq!(
            (&short.namespace, &short.account),
            (&long.namespace, &long.account)
        );
        for wrong in ["clinic", "/web", "clinic/", "a/b/c", "spiffe://x"] {
            assert!(whose(wrong).is_err(), "{wrong}");
        }
    }
}
