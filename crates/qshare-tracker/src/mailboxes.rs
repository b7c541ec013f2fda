//! Mailboxes: where a sharer and the receivers of its code exchange messages.
//!
//! [`store::MailboxStore`] keeps which number belongs to whom. [`Mailboxes`] joins the streams of
//! the sharers in session with those of receivers. The tracker learns neither words nor links.

mod claim;
mod live;
mod memory;
mod open;
mod store;

pub(crate) use claim::claim;
pub(crate) use live::Mailboxes;
pub(crate) use memory::MemoryMailboxes;
pub(crate) use open::open;
