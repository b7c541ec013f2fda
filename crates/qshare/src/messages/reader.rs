//! Who reads a message.

/// Where a message is read, which decides which remedies are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A person or script that ran a command and can run another.
    Shell,
    /// The same for `qshare get`, which has more options.
    Get,
    /// A person at the prompt of a running node.
    Prompt,
}

impl Reader {
    /// Appends the remedy that this reader can follow.
    pub(super) fn advise(self, problem: String, in_shell: &str, at_prompt: &str) -> String {
        let remedy = match self {
            Reader::Shell | Reader::Get => in_shell,
            Reader::Prompt => at_prompt,
        };
        match remedy {
            "" => problem,
            remedy => format!("{problem}\n{remedy}"),
        }
    }
}
