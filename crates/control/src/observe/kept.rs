//! What outlives the control plane: the alarms, who has acknowledged which, and the silences, in one file of its state folder.
//!
//! Written whole beside the old one and put in its place, when something changed. **A file that can't be read** is put aside as
//! `alarms.json.damaged`, named in the log, and there is nothing from before. Alarms that were open end with the process
//! that watched them.
//!
//! Bound: 1,000 alarms and 500 silences, less than a megabyte; a longer file is not read ([`BYTES_MAX`]).

use std::{
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{alarm::Alarm, silence::Silences};

/// Its name, within the state folder.
const FILE: &str = "alarms.json";
/// More than what is ever written.
const BYTES_MAX: u64 = 8 << 20;
/// Of the form that is written.
const VERSION: u32 = 1;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    version: u32,
    /// The newest number that an alarm was given.
    pub last: u64,
    /// The newest last.
    pub alarms: Vec<Alarm>,
    /// All.
    pub silences: Silences,
}

impl Kept {
    /// Of these.
    pub fn new(last: u64, alarms: Vec<Alarm>, silences: Silences) -> Self {
        Self {
            version: VERSION,
            last,
            alarms,
            silences,
        }
    }

    /// What was there when the control plane stopped.
    pub fn read(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        match read(&path) {
            Ok(Some(kept)) => kept,
            Ok(None) => Self::default(),
            Err(error) => {
                let aside = path.with_extension("json.damaged");
                tracing::warn!(
                    path = %path.display(), %error, aside = %aside.display(),
                    "alarms, acknowledgements and silences from before can't be read"
                );
                if let Err(error) = std::fs::rename(&path, &aside) {
                    tracing::warn!(%error, "it can't be put aside");
                }
                Self::default()
            }
        }
    }

    /// Puts it on disk; it is there when this returns.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let (path, fresh): (PathBuf, PathBuf) = (state_dir.join(FILE), state_dir.join("alarms.json.new"));
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)
    }
}

fn read(path: &Path) -> io::Result<Option<Kept>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::other("it is longer than anything that is written"));
    }
    let kept: Kept = serde_json::from_slice(&text).map_err(io::Error::other)?;
    if kept.version != VERSION {
        return Err(io::Error::other(format!(
            "it is of version {}, this is {VERSION}",
            kept.version
        )));
    }
    if !kept.alarms.is_sorted_by(|a, b| a.number < b.number)
        || kept.alarms.last().is_some_and(|alarm| alarm.number > kept.last)
    {
        return Err(io::Error::other("its alarms are not in order"));
    }
    Ok(Some(kept))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            alarm::{Alarms, Kind},
            edge::{Caller, Target},
            silence::Wish,
        },
        *,
    };

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rajut-kept-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    fn some() -> Kept {
        let mut alarms = Alarms::new(0);
        let caller = Caller {
            namespace: "lab".into(),
            workload: "nurse".into(),
            principal: "p".into(),
        };
        for host in ["web", "db"] {
            let target = Target::of_cluster(&format!("outbound|80||{host}"));
            alarms.called(&caller, &target.expect("an edge"), 3);
        }
        alarms
            .acknowledge(2, "me".into(), "seen".into(), 7)
            .expect("it is kept");
        let mut silences = Silences::default();
        let wish = Wish {
            kind: Some(Kind::FirstCall),
            caller: "nurse".into(),
            service: "*".into(),
            seconds: 60,
            why: "a rehearsal".into(),
        };
        silences.add(wish, "me".into(), 5).expect("a silence");
        Kept::new(2, alarms.all().cloned().collect(), silences)
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let folder = folder("whole");
        assert_eq!(Kept::read(&folder), Kept::default(), "there was none");
        let kept = some();
        kept.write(&folder).expect("written");
        assert_eq!(Kept::read(&folder), kept);
        kept.write(&folder).expect("written over");
        let file = folder.join(FILE);
        let text = std::fs::read_to_string(&file).expect("there");
        for wrong in [
            "{".to_owned(),
            text.replace("\"version\":1", "\"version\":2"),
            text.replace("\"last\":2", "\"last\":1"),
            text.replace("first-call", "no-such-kind"),
        ] {
            std::fs::write(&file, wrong).expect("written");
            assert_eq!(Kept::read(&folder), Kept::default());
            assert!(!file.exists() && folder.join("alarms.json.damaged").exists());
        }
        let _ = std::fs::remove_dir_all(&folder);
    }
}
