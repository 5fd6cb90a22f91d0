//! Everything that is tested from outside: the built program, over the wire, before real apps.
//! One binary, so that it links once; each module is one subject.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod config;
#[cfg(test)]
mod django;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod exchanges;
#[cfg(test)]
mod frameworks;
#[cfg(test)]
mod fuzzing;
#[cfg(test)]
mod learn;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod self_service;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod traps;
#[cfg(test)]
mod wire;
