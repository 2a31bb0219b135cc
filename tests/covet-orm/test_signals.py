"""Signals: who is told what, in which order; and deleting where somebody wants to be told."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from covet.testing.conformance.faults import at_every_await
from covet_orm.databases import Database
from covet_orm.exceptions import ForeignKeyViolation, StaleObject
from covet_orm.fields import (
    PROTECT,
    SET_NULL,
    CharField,
    ForeignKey,
    IntegerField,
    ManyToManyField,
    VersionField,
)
from covet_orm.models import Model, Registry
from covet_orm.signals import Signal, m2m_changed, post_delete, post_save, pre_delete, pre_save, receiver

pytestmark = pytest.mark.anyio

forum = Registry()
ALL = (pre_save, post_save, pre_delete, post_delete, m2m_changed)


class Base(Model):
    class Meta:
        abstract = True
        registry = forum


class Topic(Base):
    name = CharField(max_length=20)
    posts_made = IntegerField(default=0)
    tags: ManyToManyField[Tag] = ManyToManyField("Tag", related_name="topics")


class Tag(Base):
    name = CharField(max_length=20)


class Post(Base):
    topic = ForeignKey(Topic, related_name="posts")
    answers = ForeignKey("self", null=True, related_name="replies")


class Attachment(Base):
    post = ForeignKey(Post, related_name="attachments")


class Bookmark(Base):
    post = ForeignKey(Post, null=True, on_delete=SET_NULL, related_name="+")


class Report(Base):
    post = ForeignKey(Post, on_delete=PROTECT, related_name="+")


class Poll(Topic):
    votes = IntegerField(default=0)


class Draft(Base):
    version = VersionField()
    text = CharField(max_length=20, default="")


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.create_all(forum)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture(autouse=True)
def nobody_listens_afterwards() -> Iterator[None]:
    yield
    for signal in ALL:
        signal.receivers = ()


class Told:
    """What a receiver was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on(self, signal: Signal, sender: type[Any] | None = None) -> None:
        async def note(sender: type[Any], instance: Any, **more: Any) -> None:
            self.told.append(f"{signal.name} {sender.__name__} {instance.pk}")

        signal.connect(note, sender, weak=False)


async def test_receivers_are_called_in_order_before_and_after(db: Database) -> None:
    told: list[Any] = []

    @receiver(pre_save, sender=Topic)
    def first(sender: type[Topic], instance: Topic, created: bool, **more: Any) -> None:
        told.append(("first", instance.saved, created))
        instance.name = instance.name.title()

    @receiver([pre_save, post_save])
    async def second(sender: type[Any], instance: Any, **more: Any) -> None:
        told.append(("second", instance.saved, sender, more["update_fields"], more["using"] is db))

    @receiver(post_save, sender=Post)
    def other(**more: Any) -> None:
        raise AssertionError("nobody saved a Post")

    topic = await Topic.objects.create(name="ada")
    assert told == [("first", False, True), ("second", False, Topic, None, True), ("second", True, Topic, None, True)]
    assert (await Topic.objects.get()).name == "Ada"
    told.clear()
    topic.name = "bob"
    await topic.save(update_fields=iter(["name"]))
    assert told == [
        ("first", True, False),
        ("second", True, Topic, ("name",), True),
        ("second", True, Topic, ("name",), True),
    ]
    assert (await Topic.objects.get()).name == "Bob"


async def test_an_error_of_a_receiver_goes_to_the_caller(db: Database) -> None:
    called = []

    @receiver(pre_save, sender=Topic)
    def refuse(instance: Topic, **more: Any) -> None:
        if instance.name == "no":
            raise LookupError("not this one")

    @receiver(pre_save, sender=Topic)
    def after(**more: Any) -> None:
        called.append(1)

    with pytest.raises(LookupError, match="not this one"):
        await Topic.objects.create(name="no")
    assert not called
    assert await Topic.objects.count() == 0

    @receiver(post_save, sender=Topic)
    async def late(**more: Any) -> None:
        raise LookupError("too late")

    with pytest.raises(LookupError, match="too late"):
        await Topic.objects.create(name="yes")
    assert await Topic.objects.count() == 1
    with pytest.raises(LookupError):
        async with db.transaction():
            await Topic.objects.create(name="yes")
    assert await Topic.objects.count() == 1


async def test_a_receiver_may_use_the_database(db: Database) -> None:
    @receiver(post_save, sender=Post)
    async def count(instance: Post, created: bool, using: Database, **more: Any) -> None:
        topic = await Topic.objects.using(using).get(pk=instance.topic_id)
        topic.posts_made += 1
        await topic.save()

    topic = await Topic.objects.create(name="x")
    await topic.posts.create()
    await topic.refresh_from_db()
    assert topic.posts_made == 1


def test_receivers_come_and_go() -> None:
    signal = Signal("test")
    assert not signal.receivers

    def listen(sender: type[Any], **more: Any) -> None: ...

    class Holder:
        def listen(self, sender: type[Any], **more: Any) -> None: ...

    holder = Holder()
    signal.connect(listen, Topic)
    signal.connect(listen, Topic)
    signal.connect(listen)
    signal.connect(holder.listen, weak=True)
    signal.connect(lambda **more: None, weak=False)
    assert len(signal.receivers) == 4
    assert signal.disconnect(listen, Topic)
    assert not signal.disconnect(listen, Topic)
    del holder
    gc.collect()
    assert len(signal.receivers) == 2
    del listen
    gc.collect()
    assert len(signal.receivers) == 1
    assert signal.listened(Topic)
    assert repr(signal) == "<Signal test: 1 receivers>"
    with pytest.raises(TypeError, match="is called"):
        signal.connect("nothing")


async def test_what_goes_with_an_object_is_told_of(db: Database) -> None:
    """In an order that lets each find what it refers to; what nobody listens to goes by the database alone."""
    topic = await Topic.objects.create(name="x")
    other = await Topic.objects.create(name="y")
    first = await Post.objects.create(topic=topic)
    second = await Post.objects.create(topic=topic, answers=first)
    third = await Post.objects.create(topic=other, answers=second)
    kept = await Post.objects.create(topic=other)
    for post in (first, third, kept):
        await Attachment.objects.create(post=post)
        await Bookmark.objects.create(post=post)
    told = Told()
    told.on(pre_delete)
    told.on(post_delete, Post)
    assert await topic.delete() == 1
    assert not topic.saved
    posts = [f"post_delete Post {one}" for one in (third.pk, second.pk, first.pk)]
    assert [line for line in told.told if line.startswith("post_delete")] in (posts, [posts[0], posts[2], posts[1]])
    before = [line.partition(" ")[2] for line in told.told if line.startswith("pre_delete")]
    assert sorted(before) == sorted(
        [f"Topic {topic.pk}", "Attachment 1", "Attachment 2", *(f"Post {one.pk}" for one in (first, second, third))]
    )
    assert before[-1] == f"Topic {topic.pk}"
    assert await Post.objects.values_list("id", flat=True) == [kept.pk]
    assert await Attachment.objects.count() == 1
    assert await Bookmark.objects.filter(post=None).count() == 2


async def test_nothing_is_collected_where_nobody_listens(db: Database) -> None:
    told = Told()
    told.on(pre_delete, Tag)
    topic = await Topic.objects.create(name="x")
    await Post.objects.create(topic=topic)
    assert await topic.delete() == 1
    assert await Post.objects.count() == 0
    told.on(post_delete, Attachment)
    topic = await Topic.objects.create(name="x")
    attachment = await Attachment.objects.create(post=await Post.objects.create(topic=topic))
    await topic.delete()
    assert told.told == [f"post_delete Attachment {attachment.pk}"]


async def test_what_forbids_a_deletion_forbids_all_of_it(db: Database) -> None:
    topic = await Topic.objects.create(name="x")
    first, second = [await Post.objects.create(topic=topic) for _ in range(2)]
    await Report.objects.create(post=first)
    told = Told()
    told.on(post_delete)
    with pytest.raises(ForeignKeyViolation):
        await topic.delete()
    assert await Post.objects.count() == 2
    assert topic.saved

    @receiver(pre_delete, sender=Post)
    def refuse(instance: Post, **more: Any) -> None:
        raise LookupError(str(instance.pk))

    with pytest.raises(LookupError):
        await second.delete()
    assert await Post.objects.count() == 2


async def test_a_query_that_deletes_tells_as_well(db: Database) -> None:
    topic = await Topic.objects.create(name="x")
    for _ in range(3):
        await Post.objects.create(topic=topic)
    told = Told()
    told.on(post_delete, Post)
    assert await Post.objects.filter(pk__gt=1).delete() == 2
    assert sorted(told.told) == ["post_delete Post 2", "post_delete Post 3"]
    assert await Topic.objects.all().delete() == 1
    assert len(told.told) == 3


async def test_a_child_goes_with_its_parent(db: Database) -> None:
    told = Told()
    told.on(post_delete)
    poll = await Poll.objects.create(name="x")
    await Post.objects.create(topic=poll)
    topic = await Topic.objects.get()
    assert await topic.delete() == 1
    assert told.told[-1] == f"post_delete Topic {topic.pk}"
    assert sorted(told.told) == [f"post_delete Poll {poll.pk}", "post_delete Post 1", f"post_delete Topic {topic.pk}"]
    assert await Poll.objects.count() == await Topic.objects.count() == 0
    told.told.clear()
    poll = await Poll.objects.create(name="x")
    assert await poll.delete() == 1
    assert told.told == [f"post_delete Poll {poll.pk}"]
    assert await Topic.objects.count() == 0


async def test_a_stale_object_is_not_deleted(db: Database) -> None:
    told = Told()
    told.on(post_delete)
    draft = await Draft.objects.create()
    stale = await Draft.objects.get()
    draft.text = "new"
    await draft.save()
    with pytest.raises(StaleObject):
        await stale.delete()
    assert told.told == []
    await draft.delete()
    assert await Draft.objects.count() == 0


async def test_a_cancelled_deletion_deletes_nothing(db: Database) -> None:
    told = Told()
    told.on(post_delete)
    topic = await Topic.objects.create(name="x")
    for _ in range(2):
        await Post.objects.create(topic=topic)

    async def delete() -> None:
        await (await Topic.objects.get()).delete()

    async def check() -> None:
        assert (await Topic.objects.count(), await Post.objects.count()) in ((1, 2), (0, 0))
        if not await Topic.objects.exists():
            await (await Topic.objects.create(name="x")).posts.bulk_create([Post(), Post()])

    assert await at_every_await(delete, check) > 0


async def test_a_relation_to_many_tells_of_its_changes(db: Database) -> None:
    told: list[Any] = []

    @receiver(m2m_changed)
    async def note(
        sender: Any, instance: Any, action: str, pk_set: Any, reverse: bool, model: Any, **more: Any
    ) -> None:
        told.append((action, None if pk_set is None else set(pk_set), reverse, model))

    topic = await Topic.objects.create(name="x")
    red, blue, green = [await Tag.objects.create(name=name) for name in ("red", "blue", "green")]
    await topic.tags.add(red)
    await topic.tags.add(red, blue)
    assert told == [
        ("pre_add", {red.pk}, False, Tag),
        ("post_add", {red.pk}, False, Tag),
        ("pre_add", {blue.pk}, False, Tag),
        ("post_add", {blue.pk}, False, Tag),
    ]
    told.clear()
    await topic.tags.set([green, blue])
    assert [one[:2] for one in told] == [
        ("pre_remove", {red.pk}),
        ("post_remove", {red.pk}),
        ("pre_add", {green.pk}),
        ("post_add", {green.pk}),
    ]
    told.clear()
    await green.topics.clear()
    assert told == [("pre_clear", None, True, Topic), ("post_clear", None, True, Topic)]
    assert [one.name for one in await topic.tags.all()] == ["blue"]

    @receiver(m2m_changed)
    def refuse(action: str, **more: Any) -> None:
        if action.startswith("post"):
            raise LookupError(action)

    changes: list[Callable[[], Awaitable[None]]] = [
        lambda: topic.tags.add(red),
        lambda: topic.tags.remove(blue),
        lambda: topic.tags.clear(),
    ]
    for change in changes:
        with pytest.raises(LookupError):
            await change()
        assert [one.name for one in await topic.tags.all()] == ["blue"]
