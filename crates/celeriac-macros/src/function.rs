//! Reads the function under `#[task]`: its parameters and what it returns.

use syn::{
    Attribute, Error, Expr, FnArg, GenericArgument, Ident, Meta, Pat, PathArguments, Result,
    ReturnType, Safety, Signature, Type,
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
    let generics = &signature.generics;
    if !generics.params.is_empty() || generics.where_clause.is_some() {
        let text = "a task cannot be generic: its arguments come from a message";
        return Err(match &generics.where_clause {
            Some(clause) if generics.params.is_empty() => Error::new_spanned(clause, text),
            _ => Error::new_spanned(generics, text),
        });
    }
    let is_plain = matches!(signature.safety, Safety::Default)
        && signature.constness.is_none()
        && signature.abi.is_none()
        && signature.variadic.is_none();
    if !is_plain {
        let text = "a task is a safe `async fn` without `const`, `unsafe`, `extern` or `...`";
        return Err(Error::new_spanned(&signature.ident, text));
    }
    signature.inputs.iter_mut().map(parameter).collect()
}

fn parameter(input: &mut FnArg) -> Result<Parameter> {
    let typed = match input {
        FnArg::Typed(typed) => typed,
        FnArg::Receiver(receiver) => {
            let text = "a task is a free function without `self`";
            return Err(Error::new_spanned(receiver, text));
        }
    };
    let name = match &*typed.pat {
        Pat::Ident(pattern) if pattern.subpat.is_none() && pattern.by_ref.is_none() => {
            pattern.ident.clone()
        }
        other => {
            return Err(Error::new_spanned(other, "a task's parameters are plain names"));
        }
    };
    let mut origin = None;
    let mut kept = Vec::new();
    for attribute in std::mem::take(&mut typed.attrs) {
        match own_attribute(&attribute)? {
            Some(_) if origin.is_some() => {
                let text = "one `#[inject]` or one `#[default(…)]`, not both";
                return Err(Error::new_spanned(attribute, text));
            }
            Some(own) => origin = Some(own),
            None => kept.push(attribute),
        }
    }
    typed.attrs = kept;
    let kind = (*typed.ty).clone();
    if let Type::Reference(_) | Type::ImplTrait(_) = kind {
        check_owned(&kind)?;
    }
    let origin = origin.unwrap_or_else(|| match last_segment(&kind) {
        Some((name, _)) if name == "Context" || name == "State" => Origin::Injected,
        Some((name, _)) if name == "Option" => Origin::Optional,
        _ => Origin::Required,
    });
    // What is injected may hold references: `State<&'static Table>`.
    if !matches!(origin, Origin::Injected) {
        check_owned(&kind)?;
    }
    Ok(Parameter { name, kind, origin })
}

/// Refuses types that no message can give.
fn check_owned(kind: &Type) -> Result<()> {
    match kind {
        Type::Reference(_) => {
            let text =
                "a task owns its arguments: take String instead of &str, Vec<T> instead of &[T]";
            Err(Error::new_spanned(kind, text))
        }
        Type::ImplTrait(_) => {
            let text = "a task's types are known: a message cannot say which type an \
                        `impl Trait` is";
            Err(Error::new_spanned(kind, text))
        }
        Type::Group(group) => check_owned(&group.elem),
        Type::Tuple(tuple) => tuple.elems.iter().try_for_each(check_owned),
        Type::Path(path) => path.path.segments.iter().try_for_each(|segment| {
            let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
                return Ok(());
            };
            arguments.args.iter().try_for_each(|argument| match argument {
                GenericArgument::Type(kind) => check_owned(kind),
                _ => Ok(()),
            })
        }),
        _ => Ok(()),
    }
}

fn own_attribute(attribute: &Attribute) -> Result<Option<Origin>> {
    if attribute.path().is_ident("inject") {
        attribute.meta.require_path_only()?;
        Ok(Some(Origin::Injected))
    } else if attribute.path().is_ident("default") {
        if matches!(attribute.meta, Meta::List(_)) {
            return Ok(Some(Origin::Default(Box::new(attribute.parse_args()?))));
        }
        Err(Error::new_spanned(attribute, "say which value: `#[default(0)]`"))
    } else if attribute.path().is_ident("cfg") {
        let text = "`#[cfg]` cannot change a task's parameters: producers rely on them";
        Err(Error::new_spanned(attribute, text))
    } else {
        Ok(None)
    }
}

/// What a task returns: the inside of a `Result`, or the type itself.
pub(crate) struct Returned {
    pub(crate) kind: Type,
    pub(crate) fallible: bool,
}

/// Reads what a signature returns.
pub(crate) fn returned(signature: &Signature) -> Result<Returned> {
    let unit = || syn::parse_quote!(());
    let kind = match &signature.output {
        ReturnType::Default => {
            return Ok(Returned { kind: unit(), fallible: false });
        }
        ReturnType::Type(_, kind) => (**kind).clone(),
    };
    let returned = match last_segment(&kind) {
        Some((name, inside)) if name == "Result" => {
            Returned { kind: inside.unwrap_or_else(unit), fallible: true }
        }
        _ => Returned { kind, fallible: false },
    };
    check_owned(&returned.kind)?;
    Ok(returned)
}

/// The last name of a path type and its first type argument.
fn last_segment(kind: &Type) -> Option<(String, Option<Type>)> {
    let path = match kind {
        Type::Path(path) => path,
        // A type that came through `macro_rules!`.
        Type::Group(group) => return last_segment(&group.elem),
        _ => return None,
    };
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
