//! Workflows built from calls: chain, group, chord.

use crate::call::Call;
use celeriac_wire::{Signature, SignatureKind};
use std::marker::PhantomData;

mod sealed {
    pub trait Sealed {}
    impl<R> Sealed for super::Call<R> {}
    impl<R> Sealed for super::Chain<R> {}
    impl<R> Sealed for super::Group<R> {}
    impl<R> Sealed for super::Chord<R> {}
}

/// Something that can be sent and returns `R` at its end: a call, a chain, a group, a chord.
pub trait Workflow: sealed::Sealed + Sized {
    /// What its last task returns.
    type Output;

    /// The signature, and the first thing that was wrong while it was built.
    #[doc(hidden)]
    fn into_signature(self) -> (Signature, Option<String>);
}

impl<R> Workflow for Call<R> {
    type Output = R;
    fn into_signature(self) -> (Signature, Option<String>) {
        self.into_parts()
    }
}

/// Tasks one after another, each given the result of the one before.
#[derive(Debug)]
#[must_use = "a chain does nothing until a client sends it"]
pub struct Chain<R> {
    steps: Vec<Signature>,
    errbacks: Vec<Signature>,
    fault: Option<String>,
    result: PhantomData<fn() -> R>,
}

/// Starts a chain.
pub fn chain<W: Workflow>(first: W) -> Chain<W::Output> {
    let (signature, fault) = first.into_signature();
    Chain { steps: vec![signature], errbacks: Vec::new(), fault, result: PhantomData }
}

impl<R> Chain<R> {
    /// Adds a step: a call whose first argument is the result before ([`Call`]s made by
    /// `partial`), a chain, a chord, or a group.
    pub fn then<W: Workflow>(mut self, next: W) -> Chain<W::Output> {
        let (signature, fault) = next.into_signature();
        self.steps.push(signature);
        let fault = self.fault.or(fault);
        Chain { steps: self.steps, errbacks: self.errbacks, fault, result: PhantomData }
    }

    /// Calls this with the id of the step that fails for good.
    pub fn on_error<S>(mut self, errback: Call<S>) -> Self {
        let (signature, fault) = errback.into_parts();
        self.errbacks.push(signature);
        self.fault = self.fault.or(fault);
        self
    }
}

impl<R> Workflow for Chain<R> {
    type Output = R;
    fn into_signature(self) -> (Signature, Option<String>) {
        let mut signature = Signature::chain(self.steps);
        for errback in self.errbacks {
            signature = signature.with_link_error(errback);
        }
        (signature, self.fault)
    }
}

/// Tasks side by side.
#[derive(Debug)]
#[must_use = "a group does nothing until a client sends it"]
pub struct Group<R> {
    members: Vec<Signature>,
    fault: Option<String>,
    result: PhantomData<fn() -> R>,
}

/// Makes a group of workflows that return the same type.
pub fn group<W: Workflow>(members: impl IntoIterator<Item = W>) -> Group<W::Output> {
    let mut fault = None;
    let members = members
        .into_iter()
        .map(|member| {
            let (signature, wrong) = member.into_signature();
            fault = fault.take().or(wrong);
            signature
        })
        .collect();
    Group { members, fault, result: PhantomData }
}

impl<R> Group<R> {
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }
}

/// A group inside a chain: what follows it gets the list of results.
impl<R> Workflow for Group<R> {
    type Output = Vec<R>;
    fn into_signature(self) -> (Signature, Option<String>) {
        (Signature::group(self.members), self.fault)
    }
}

/// A group and a body that runs once with the list of its results.
#[derive(Debug)]
#[must_use = "a chord needs its body: call `then`"]
pub struct Header<R>(Group<R>);

/// Starts a chord over a group.
pub fn chord<R>(header: Group<R>) -> Header<R> {
    Header(header)
}

impl<R> Header<R> {
    /// Adds the body, whose first argument is the list of results in the header's order.
    pub fn then<W: Workflow>(self, body: W) -> Chord<W::Output> {
        let (body, fault) = body.into_signature();
        let single = body.kind() != SignatureKind::Group;
        let wrong = (!single).then(|| "the body of a chord cannot be a group".to_owned());
        Chord {
            signature: Signature::chord(self.0.members, body),
            fault: self.0.fault.or(fault).or(wrong),
            result: PhantomData,
        }
    }
}

/// A group with its body.
#[derive(Debug)]
#[must_use = "a chord does nothing until a client sends it"]
pub struct Chord<R> {
    signature: Signature,
    fault: Option<String>,
    result: PhantomData<fn() -> R>,
}

impl<R> Chord<R> {
    /// Calls this when a member or the body fails for good.
    pub fn on_error<S>(mut self, errback: Call<S>) -> Self {
        let (signature, fault) = errback.into_parts();
        self.signature = self.signature.with_link_error(signature);
        self.fault = self.fault.or(fault);
        self
    }
}

impl<R> Workflow for Chord<R> {
    type Output = R;
    fn into_signature(self) -> (Signature, Option<String>) {
        (self.signature, self.fault)
    }
}
