//! Tests in the network lab: the program on hosts with routers, rates, loss and delay between them.
//! Each test runs in namespaces of its own.
#![cfg(target_os = "linux")]

mod lab;
mod lan;
mod nat;
mod net;
mod port_mapping;
