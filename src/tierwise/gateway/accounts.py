"""Which of a provider's several keys a request goes with.

Keys belong to accounts. What one account has, no other has: its rate limits, its prompt caches, and (on Sonnet 5.5 and
Haiku 5.5) the thinking blocks of conversations that began with it. So a request may go where there is most room, one of
a conversation goes where its cache is as long as there is room, and one with thinking blocks goes nowhere else.

A key that is refused is set aside for a while. Where all are, they are tried all the same: the provider's own words
tell better what is wrong than ours. Keys are named by the variables that hold them, never by what they are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tierwise.core.settings import ProviderSettings, UpstreamKey
from tierwise.gateway.admission import Admits, Ticket
from tierwise.policy.ratelimits import Family

__all__ = ["Accounts", "Choice", "KeysOfCall"]

_REFUSED_SECONDS = 300.0
_log = logging.getLogger("tierwise.gateway")


@dataclass(frozen=True, slots=True)
class Choice:
    """The accounts that a request may go with."""

    accounts: tuple[str, ...]
    preferred: str | None = None


class Accounts:
    """The keys of all providers that have several, and which of them are set aside.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._aside_until: dict[UpstreamKey, float] = {}
        self._last_used: dict[UpstreamKey, int] = {}
        self._uses = 0

    def choice(
        self, provider: ProviderSettings, *, on: str | None, thinking: bool, tried: Collection[UpstreamKey] = ()
    ) -> Choice | None:
        """Where a request may go.

        Args:
            on: the account that its conversation is on.
            thinking: there are thinking blocks in it.
            tried: keys that were refused in this call already.

        Returns None where every key was tried.
        """
        left = [key for key in provider.api_keys if key not in tried]
        accounts = tuple(dict.fromkeys(key.account for key in self._fit(left)))
        if not accounts:
            return None
        if thinking and on is not None and any(key.account == on for key in provider.api_keys):
            return Choice((on,)) if any(key.account == on for key in left) else None
        return Choice(accounts, preferred=on if on in accounts else None)

    def key(self, provider: ProviderSettings, account: str, tried: Collection[UpstreamKey] = ()) -> UpstreamKey:
        """The key of an account that was used least of late."""
        of_it = [key for key in provider.api_keys if key.account == account]
        left = self._fit([key for key in of_it if key not in tried] or of_it)
        found = min(left, key=lambda key: self._last_used.get(key, 0))
        self._uses += 1
        self._last_used[found] = self._uses
        return found

    def any_key(self, provider: ProviderSettings) -> UpstreamKey | None:
        """A key for what belongs to no conversation; None where the provider has no list of keys."""
        fit = self._fit(provider.api_keys)
        return fit[0] if fit else None

    def refused(self, provider: ProviderSettings, key: UpstreamKey) -> None:
        """The provider does not take a key."""
        self._aside_until[key] = self._clock() + _REFUSED_SECONDS
        _log.warning(
            "providers.%s refuses the key in %s (401); it is left alone for %d minutes",
            provider.name,
            key.name,
            _REFUSED_SECONDS // 60,
        )

    def _fit(self, keys: Collection[UpstreamKey]) -> list[UpstreamKey]:
        """Those that are not set aside; all, where all are."""
        now = self._clock()
        return [key for key in keys if self._aside_until.get(key, 0.0) <= now] or list(keys)


class KeysOfCall:
    """The keys that one request to one model may go with, and the one that it goes with now.

    Args:
        accounts: the keys of all.
        admission: gives leave to send.
        provider: which has several keys.
        on: the account that the conversation is on, if that is known.
        thinking: there are thinking blocks in the request.
    """

    def __init__(
        self, accounts: Accounts, admission: Admits, provider: ProviderSettings, *, on: str | None, thinking: bool
    ) -> None:
        self.key: UpstreamKey | None = None
        self._accounts = accounts
        self._admission = admission
        self._provider = provider
        self._on = on
        self._thinking = thinking
        self._tried: set[UpstreamKey] = set()

    async def admit(
        self,
        family: Family,
        session: str,
        *,
        interactive: bool,
        input_tokens: int,
        output_tokens: int,
        deadline_seconds: float = math.inf,
    ) -> Ticket:
        """As `Admission.admit`, with the account that suits best.

        Raises:
            WouldWait: none has room in time.
        """
        choice = self._choice() or Choice(tuple(dict.fromkeys(key.account for key in self._provider.api_keys)))
        families = [Family(account, family.name) for account in choice.accounts]
        ticket = await self._admission.admit_any(
            families,
            session,
            interactive=interactive,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            deadline_seconds=deadline_seconds,
            preferred=None if choice.preferred is None else Family(choice.preferred, family.name),
        )
        self.key = self._accounts.key(self._provider, ticket.family.pool, self._tried)
        return ticket

    def go_on(self, status: int, *, signature: bool) -> bool:
        """Whether a request that was refused is worth another try with another key.

        It is where the key is refused, where its account's limit is used up, and where nobody remembers which account
        thinking blocks are of: every one is asked.
        """
        key = self.key
        if key is None:
            return False
        if status == 401:
            self._accounts.refused(self._provider, key)
            self._tried.add(key)
        elif status == 429 or (signature and self._on is None and self._thinking):
            self._tried.update(other for other in self._provider.api_keys if other.account == key.account)
        else:
            return False
        return self._choice() is not None

    def _choice(self) -> Choice | None:
        return self._accounts.choice(self._provider, on=self._on, thinking=self._thinking, tried=self._tried)
