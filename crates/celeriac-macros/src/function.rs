//! Reads the function under `#[task]`: its parameters and what it returns.

use syn::{
    Attribute, Error, Expr, FnArg, GenericArgument, Ident, Pat, PathArguments, Result, ReturnType,
    Signature, Type,
};

/// Where a parameter's value comes from.
pub(crate) enum Origin {
    /// The worker.
    Injected,
    /// The call, always.
    Required,
    /// The call, if it gives it; the type is the inside of the `Option`.
    Optional,
    /// The call, or this expression.
    Default(Box<Expr>),
}

/// One parameter.
pub(crate) struct Parameter {
    pub(crate) name: Ident,
    pub(crate) kind: Type,
    pub(crate) origin: Origin,
}

impl Parameter {
    /// Whether it is part of a call.
    pub(crate) fn is_argument(&self) -> bool {
        !matches!(self.origin, Origin::Injected)
    }

    /// Whether it is a `String`, which calls take as anything that converts into one.
    pub(crate) fn is_string(&self) -> bool {
        last_segment(&self.kind).is_some_and(|(name, _)| name == "String")
    }
}

/// Checks the signature and takes its parameters; removes our attributes from them.
pub(crate) fn parameters(signature: &mut Signature) -> Result<Vec<Parameter>> {
    if signature.asyncness.is_none() {
        return Err(Error::new_spanned(signature.fn_token, "a task is an `async fn`"));
    }
    if !signature.generics.params.is_empty() {
        let text = "a task cannot be generic: its arguments come from a message";
        return Err(Error::new_spanned(&signature.generics, text));
    }
    signature.inputs.iter_mut().map(parameter).collect()
}

fn parameter(input: &mut FnArg) -> Result<Parameter> {
    let typed = match input {
        FnArg::Typed(typed) => typed,
        FnArg::Receiver(receiver) => {
            return Err(Error::new_spanned(receiver, "a task is a free function without `self`"));
        }
    };
    let name = match &*typed.pat {
        Pat::Ident(pattern) if pattern.subpat.is_none() => pattern.ident.clone(),
        other => return Err(Error::new_spanned(other, "a task's parameters are plain names")),
    };
    let mut origin = None;
    let mut kept = Vec::new();
    for attribute in std::mem::take(&mut typed.attrs) {
        match own_attribute(&attribute)? {
            Some(own) => origin = Some(own),
            None => kept.push(attribute),
        }
    }
    typed.attrs = kept;
    let kind = (*typed.ty).clone();
    if let Type::Reference(_) = kind {
        let text = "a task owns its arguments: take String instead of &str, Vec<T> instead of &[T]";
        return Err(Error::new_spanned(kind, text));
    }
    let origin = origin.unwrap_or_else(|| match last_segment(&kind) {
        Some((name, _)) if name == "Context" || name == "State" => Origin::Injected,
        Some((name, _)) if name == "Option" => Origin::Optional,
        _ => Origin::Required,
    });
    Ok(Parameter { name, kind, origin })
}

fn own_attribute(attribute: &Attribute) -> Result<Option<Origin>> {
    if attribute.path().is_ident("inject") {
        attribute.meta.require_path_only()?;
        Ok(Some(Origin::Injected))
    } else if attribute.path().is_ident("default") {
        Ok(Some(Origin::Default(Box::new(attribute.parse_args()?))))
    } else {
        Ok(None)
    }
}

/// What a task returns: the inside of a `Result`, or the type itself.
pub(crate) struct Returned {
    pub(crate) kind: Type,
    pub(crate) fallible: bool,
}

pub(crate) fn returned(signature: &Signature) -> Returned {
    let unit = || syn::parse_quote!(());
    let kind = match &signature.output {
        ReturnType::Default => return Returned { kind: unit(), fallible: false },
        ReturnType::Type(_, kind) => (**kind).clone(),
    };
    match last_segment(&kind) {
        Some((name, inside)) if name == "Result" => {
            Returned { kind: inside.unwrap_or_else(unit), fallible: true }
        }
        _ => Returned { kind, fallible: false },
    }
}

/// The last name of a path type and its first type argument.
fn last_segment(kind: &Type) -> Option<(String, Option<Type>)> {
    let Type::Path(path) = kind else { return None };
    let segment = path.path.segments.last()?;
    let inside = match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => {
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(kind) => Some(kind.clone()),
                _ => None,
            })
        }
        _ => None,
    };
    Some((segment.ident.to_string(), inside))
}
