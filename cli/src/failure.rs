//! How a verb fails, and the exit status that says so.

use std::process::ExitCode;

use crate::doctor::Report;
use crate::out;

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It went wrong: exit status 1.
    Failed(anyhow::Error),
    /// It went wrong, and what is printed already says how: exit status 1.
    Told,
    /// What was looked at has faults, and they are printed already: exit status 4.
    Faulty,
    /// This machine cannot do it: exit status 3.
    Unfit(Report),
}

impl Failure {
    /// Says what is wrong and gives the exit status.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Failed(error) => {
                out::complain(&format!("kuafu: {error:#}"));
                ExitCode::FAILURE
            }
            Self::Told => ExitCode::FAILURE,
            Self::Faulty => ExitCode::from(4),
            Self::Unfit(report) => {
                out::complain(report.faults().trim_end());
                ExitCode::from(3)
            }
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// How a verb ends.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;
