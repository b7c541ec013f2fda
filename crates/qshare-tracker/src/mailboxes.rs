//! Mailboxes: where a sharer and the receivers of its code exchange messages.
//!
//! [`store::MailboxStore`] keeps which number belongs to whom. [`Mailboxes`] joins the streams of
//! the sharers in session with those of receivers, also of receivers at other trackers of a shared
//! registry ([`run`]). The tracker learns neither words nor links.

mod claim;
#[cfg(test)]
mod conformance;
mod live;
mod memory;
mod open;
mod run;
mod shared_store;
mod store;

pub(crate) use claim::claim;
pub(crate) use live::Mailboxes;
pub(crate) use open::open;
pub(crate) use run::host;
