"""Methods that carry an operation's name, signature and docstring over to a client.

`help`, editors and type checkers see the operation's own parameters; what it returns is the driver's:
the result, something to await, or an iterator.
"""

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, get_args, overload

Parameters = ParamSpec("Parameters")
Returned_co = TypeVar("Returned_co", covariant=True)


class Method(Protocol[Parameters, Returned_co]):
    """What type checkers make of a carried method: bound to a client it takes the operation's parameters."""

    @overload
    def __get__(self, client: None, owner: object, /) -> Callable[Concatenate[Any, Parameters], Returned_co]: ...

    @overload
    def __get__(self, client: object, owner: object, /) -> Callable[Parameters, Returned_co]: ...


def as_method(
    operation: Callable[Parameters, object],
    call: Callable[Concatenate[Any, Parameters], Returned_co],
    returned: object,
) -> Method[Parameters, Returned_co]:
    """`call`, which looks like `operation` but for what it returns."""
    told = inspect.signature(operation)
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    call.__name__ = call.__qualname__ = operation.__name__
    call.__doc__, call.__module__ = operation.__doc__, operation.__module__
    call.__annotations__ = {**operation.__annotations__, "return": returned}
    parameters = [parameter for parameter in told.parameters.values() if parameter.name != "self"]
    signature = told.replace(parameters=[this, *parameters], return_annotation=returned)
    vars(call)["__signature__"] = signature
    return cast("Method[Parameters, Returned_co]", call)


def result_of(operation: Callable[..., object]) -> object:
    """Of a function that returns `Operation[Result]` the `Result`."""
    return get_args(operation.__annotations__["return"])[2]


def item_of(stream: Callable[..., object]) -> object:
    """Of a function that returns `Stream[Item]` the `Item`."""
    _send, emit = get_args(get_args(stream.__annotations__["return"])[0])
    return get_args(emit)[0]
