//! Writes what stands beside the function.

use crate::function::{Origin, Parameter, Returned, parameters, returned};
use crate::options::Options;
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Block, Error, Ident, Result, Signature, Token, Visibility};

/// A function with or without a body.
struct Function {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
    body: Option<Block>,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let signature = input.parse()?;
        let body = if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            None
        } else {
            Some(input.parse()?)
        };
        Ok(Self { attributes, visibility, signature, body })
    }
}

/// Expands `#[task(attribute)] item`.
pub(crate) fn task(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options: Options = syn::parse2(attribute)?;
    let mut function: Function = syn::parse2(item)?;
    let parameters = parameters(&mut function.signature)?;
    let returned = returned(&function.signature);
    let name = &function.signature.ident;
    let calls = calls(&parameters, &returned, options.remote);
    let Function { attributes, visibility, signature, body } = &function;
    let docs = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let wire_name = if let Some(name) = &options.name {
        quote!(#name)
    } else {
        let short = name.to_string();
        quote!(::core::concat!(::core::module_path!(), ".", #short))
    };
    let beside = match (body, options.remote) {
        (Some(_), true) => {
            return Err(Error::new_spanned(name, "a remote task has no body: end it with `;`"));
        }
        (None, false) => {
            return Err(Error::new_spanned(
                name,
                "a task without a body needs the option `remote`",
            ));
        }
        (None, true) => {
            let unused = if options.calls.is_empty() { None } else { Some(()) };
            if unused.is_some() {
                let text = "a remote task takes `name` only; its options are its own program's";
                return Err(Error::new_spanned(name, text));
            }
            quote! {
                impl #name {
                    /// The name on the wire.
                    pub const NAME: &'static str = #wire_name;
                }
            }
        }
        (Some(body), false) => {
            let implementation = implementation(name, &wire_name, &parameters, &returned, &options);
            quote! {
                #(#attributes)*
                #visibility #signature #body
                #implementation
            }
        }
    };
    Ok(quote! {
        #beside
        #(#docs)*
        #[allow(non_camel_case_types)]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #visibility struct #name {}
        impl #name { #calls }
    })
}

/// `impl Task`.
fn implementation(
    name: &Ident,
    wire_name: &TokenStream,
    parameters: &[Parameter],
    returned: &Returned,
    options: &Options,
) -> TokenStream {
    let arguments: Vec<&Parameter> = parameters.iter().filter(|one| one.is_argument()).collect();
    let params = arguments.iter().map(|one| {
        let text = one.name.to_string();
        if matches!(one.origin, Origin::Required) {
            quote!(::celeriac::Param::required(#text))
        } else {
            quote!(::celeriac::Param::optional(#text))
        }
    });
    let injected = parameters.iter().filter(|one| !one.is_argument()).map(|one| &one.kind);
    let mut index = 0usize;
    let taken = parameters.iter().map(|one| {
        let (name, kind) = (&one.name, &one.kind);
        let at = index;
        index += usize::from(one.is_argument());
        match &one.origin {
            Origin::Injected => quote! {
                let #name = <#kind as ::celeriac::FromContext>::from_context(&context)?;
            },
            Origin::Required => quote!(let #name: #kind = arguments.required(#at)?;),
            Origin::Optional => quote!(let #name: #kind = arguments.optional(#at)?;),
            Origin::Default(value) => {
                quote!(let #name: #kind = arguments.or_else(#at, || #value)?;)
            }
        }
    });
    let names = parameters.iter().map(|one| &one.name);
    let run = if returned.fallible {
        quote!(::core::result::Result::Ok(#name(#(#names),*).await?))
    } else {
        quote!(::core::result::Result::Ok(#name(#(#names),*).await))
    };
    let (output, option_calls) = (&returned.kind, &options.calls);
    quote! {
        impl ::celeriac::Task for #name {
            const NAME: &'static str = #wire_name;
            const PARAMS: &'static [::celeriac::Param] = &[#(#params),*];
            type Output = #output;

            fn options(options: ::celeriac::TaskOptions) -> ::celeriac::TaskOptions {
                options #(#option_calls)*
            }

            #[allow(unused_variables)]
            fn require(requirements: &mut ::celeriac::Requirements) {
                #(<#injected as ::celeriac::FromContext>::require(requirements);)*
            }

            #[allow(unused_variables, unused_mut)]
            async fn run(
                context: ::celeriac::Context,
                mut arguments: ::celeriac::Arguments,
            ) -> ::core::result::Result<Self::Output, ::celeriac::TaskError> {
                #(#taken)*
                #run
            }
        }
    }
}

/// The functions `call` and `partial`.
fn calls(parameters: &[Parameter], returned: &Returned, remote: bool) -> TokenStream {
    let arguments: Vec<&Parameter> = parameters.iter().filter(|one| one.is_argument()).collect();
    let output = &returned.kind;
    let start = if remote {
        quote!(::celeriac::Call::<#output>::remote(Self::NAME))
    } else {
        quote!(::celeriac::Call::<#output>::new::<Self>())
    };
    let build = |arguments: &[&Parameter]| {
        let names: Vec<Ident> = arguments.iter().map(|one| format_ident!("{}", one.name)).collect();
        let kinds = arguments.iter().map(|one| {
            let kind = &one.kind;
            if one.is_string() {
                quote!(impl ::core::convert::Into<::std::string::String>)
            } else {
                quote!(#kind)
            }
        });
        let adds = arguments.iter().map(|one| {
            let name = &one.name;
            if one.is_string() {
                quote!(.arg::<::std::string::String>(&#name.into()))
            } else {
                quote!(.arg(&#name))
            }
        });
        (quote!(#(#names: #kinds),*), quote!(#start #(#adds)*))
    };
    let (all, call) = build(&arguments);
    let partial = if arguments.is_empty() {
        None
    } else {
        let (rest, partial) = build(&arguments[1..]);
        Some(quote! {
            /// Makes a call whose first argument is the result of the task before it.
            #[allow(dead_code, clippy::needless_pass_by_value)]
            pub fn partial(#rest) -> ::celeriac::Call<#output> { #partial }
        })
    };
    quote! {
        /// Makes a call, to be sent by a client.
        #[allow(dead_code, clippy::too_many_arguments, clippy::needless_pass_by_value)]
        pub fn call(#all) -> ::celeriac::Call<#output> { #call }
        #partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(attribute: &str, item: &str) -> std::result::Result<String, String> {
        let parse = |text: &str| text.parse::<TokenStream>().unwrap();
        task(parse(attribute), parse(item))
            .map(|tokens| tokens.to_string().replace(' ', ""))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_function_stays_and_a_struct_stands_beside_it() {
        let code = expand(
            r#"name = "tasks.add", queue = "math""#,
            "pub async fn add(db: State<Db>, x: i64, #[default(2)] y: i64, note: Option<String>) -> Result<i64> { Ok(x) }",
        )
        .unwrap();
        for expected in [
            "pubasyncfnadd(db:State<Db>,x:i64,y:i64,note:Option<String>)->Result<i64>",
            "pubstructadd{}",
            r#"constNAME:&'staticstr="tasks.add""#,
            r#"Param::required("x"),::celeriac::Param::optional("y"),::celeriac::Param::optional("note")"#,
            "pubfncall(x:i64,y:i64,note:Option<String>)->::celeriac::Call<i64>",
            "pubfnpartial(y:i64,note:Option<String>)->::celeriac::Call<i64>",
            "arguments.or_else(1usize,||2)?",
        ] {
            assert!(code.contains(expected), "{expected} is not in {code}");
        }
    }

    #[test]
    fn a_remote_task_makes_calls_only() {
        let code =
            expand(r#"name = "mail.send", remote"#, "async fn send(to: String) -> u64;").unwrap();
        assert!(
            code.contains("Call::<u64>::remote(Self::NAME)") && !code.contains("::celeriac::Task")
        );
    }

    #[test]
    fn what_cannot_be_a_task_says_why() {
        for (attribute, item, expected) in [
            ("", "fn add() {}", "async fn"),
            ("", "async fn add<T>(x: T) {}", "cannot be generic"),
            ("", "async fn add(&self) {}", "without `self`"),
            ("", "async fn add((a, b): (i64, i64)) {}", "plain names"),
            ("", "async fn add(x: &str) {}", "String instead of &str"),
            ("", "async fn add(x: i64);", "needs the option `remote`"),
            ("remote", "async fn add(x: i64) {}", "has no body"),
            (r#"remote, queue = "q""#, "async fn add(x: i64);", "takes `name` only"),
        ] {
            let error = expand(attribute, item).unwrap_err();
            assert!(error.contains(expected), "{item}: {error}");
        }
    }
}
