"""One connection to a real server."""

import asyncio

import numpy as np

from crosseai.client.servers.transport import TritonTransport


def test_a_cancelled_request_ends_before_the_connection_closes(tiny_server: str) -> None:
    """What a client cancels can crash Triton; so the request of a run that is cut short is answered all the same."""

    async def cancel_one() -> tuple[int, int]:
        transport = TritonTransport(tiny_server)
        model = await transport.describe()
        spec = model.spec
        images = np.zeros((1, 1, spec.input_size, spec.input_size), np.uint8)

        async def answered() -> int:
            statistics = await transport._client.get_inference_statistics(spec.name, model.version)
            return int(statistics.model_stats[0].inference_stats.success.count)

        await transport.infer(model, images, np.array([[-1]]), ["logits"])
        before = await answered()
        request = asyncio.ensure_future(transport.infer(model, images, np.array([[-1]]), ["logits"]))
        await asyncio.sleep(0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert request.cancelled()
        await transport.close()
        transport = TritonTransport(tiny_server)
        after = await answered()
        await transport.close()
        return before, after

    before, after = asyncio.run(cancel_one())
    assert after == before + 1
