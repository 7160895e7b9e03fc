//! How the mesh goes from one root to another without a restart and without a refused handshake.
//!
//! ```text
//!  trust ──────────────► reissue ──────────────► retire ─────────────► done
//!  everybody believes    everybody's certificate  everybody believes
//!  both roots            is under the new root    the new root alone
//! ```
//!
//! One step follows the other when every proxy has acknowledged it: a proxy acknowledges whom it is told to believe when all its
//! workers believe them and its own certificate is under the first of them. Proxies that are known to run and are not
//! connected are waited for, since they could not be spoken with afterwards; the operator may say that they are not
//! ([`Rotation::without_away`]). What is done is written down before it is told to anybody (`keystore`), so the control
//! plane may be killed between any two steps and goes on where it was.
//!
//! This module decides ([`Wait`]); `crate::trust` looks and acts.

use std::time::Duration;

use rajut_types::Text;

/// What the proxies are waited for to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Believe both roots.
    Trust,
    /// Have certificates under the new one.
    Reissue,
    /// Believe the new one alone.
    Retire,
}

impl Step {
    /// What comes then.
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Trust => Some(Self::Reissue),
            Self::Reissue => Some(Self::Retire),
            Self::Retire => None,
        }
    }
}

/// A change that is under way, as it is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rotation {
    /// Where it is.
    pub step: Step,
    /// When it began, seconds since 1970.
    pub began: u64,
    /// When the step began.
    pub since: u64,
    /// When this step is done, the operator wants to look before it goes on.
    pub hold: Option<Step>,
    /// Proxies that are not connected are not waited for.
    pub without_away: bool,
    /// Whom everybody believed before, PEM.
    pub old_roots: String,
}

/// How one proxy stands to what it was told to believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// In force there.
    Acknowledged,
    /// Told, or to be told in a moment.
    Pending,
    /// It said no.
    Refused(String),
    /// It is connected and has not asked whom to believe.
    NotFollowing,
    /// It is known to run, and is not connected.
    Away,
}

impl Standing {
    /// As it is shown.
    pub fn text(&self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Pending => "pending",
            Self::Refused(_) => "refused",
            Self::NotFollowing => "notFollowing",
            Self::Away => "away",
        }
    }
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// Its workload.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// How it stands.
    pub standing: Standing,
}

/// After its start a process waits so long for the proxies that nothing but their connection tells of.
pub const GATHER: Duration = Duration::from_secs(12);

/// Whether a step may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Somebody has not done it.
    ForProxies,
    /// The operator wants to look.
    ForOperator,
    /// No.
    Over,
}

impl Rotation {
    /// Whether the step may end, with proxies that stand so.
    pub fn wait(&self, followers: &[Follower]) -> Wait {
        let blocks = |follower: &Follower| match follower.standing {
            Standing::Acknowledged => false,
            Standing::Away => !self.without_away,
            Standing::Pending | Standing::Refused(_) | Standing::NotFollowing => true,
        };
        if followers.iter().any(blocks) {
            Wait::ForProxies
        } else if self.hold.is_some_and(|hold| hold <= self.step) {
            Wait::ForOperator
        } else {
            Wait::Over
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(step: Step, hold: Option<Step>) -> Rotation {
        Rotation {
            step,
            began: 0,
            since: 0,
            hold,
            without_away: false,
            old_roots: String::new(),
        }
    }

    fn follower(standing: Standing) -> Follower {
        Follower {
            name: "web-0".into(),
            namespace: "clinic".into(),
            standing,
        }
    }

    #[test]
    fn a_step_ends_when_every_proxy_has_acknowledged_it() {
        let rotation = rotation(Step::Trust, None);
        let done = follower(Standing::Acknowledged);
        assert_eq!(rotation.wait(std::slice::from_ref(&done)), Wait::Over);
        for standing in [
            Standing::Pending,
            Standing::Refused("no".to_owned()),
            Standing::NotFollowing,
            Standing::Away,
        ] {
            let followers = [done.clone(), follower(standing)];
            assert_eq!(rotation.wait(&followers), Wait::ForProxies, "{followers:?}");
        }
    }

    #[test]
    fn who_is_away_is_left_behind_only_where_the_operator_says_so() {
        let rotation = Rotation {
            without_away: true,
            ..rotation(Step::Reissue, None)
        };
        assert_eq!(rotation.wait(&[follower(Standing::Away)]), Wait::Over);
        assert_eq!(rotation.wait(&[follower(Standing::Pending)]), Wait::ForProxies);
    }

    #[test]
    fn it_holds_at_the_step_that_the_operator_wants_to_look_at_and_no_earlier() {
        let done = [follower(Standing::Acknowledged)];
        assert_eq!(rotation(Step::Trust, Some(Step::Reissue)).wait(&done), Wait::Over);
        assert_eq!(
            rotation(Step::Reissue, Some(Step::Reissue)).wait(&done),
            Wait::ForOperator
        );
        assert_eq!(
            rotation(Step::Retire, Some(Step::Trust)).wait(&done),
            Wait::ForOperator
        );
    }
}
