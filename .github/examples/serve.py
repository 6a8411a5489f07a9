"""A service that recognizes actions, on Ray Serve: clips by POST, streams by WebSocket.

pip install 'sgnray[serve]' && python serve.py runs/NAME 8000  # http://127.0.0.1:8000 has a page
curl --data-binary @S001C001P001R001A001.skeleton http://127.0.0.1:8000/predict
"""

import json
import sys
from asyncio import to_thread, wait_for
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse
from ray import serve

from sgnray import SgnError, Stream, TrainedModel, load_trained_model
from sgnray.errors import InputError
from sgnray.predict import read_clip, recognize_each
from sgnray.view import render_player, scene_of_stream

IDLE_S = 300  # a browser runs the timer of a hidden page once a minute
IDLE = InputError(f"no frame came for {IDLE_S} s", where="the stream", now="connect again")
app = FastAPI()


def parse(data: dict) -> object:
    """Read the JSON of a message, None if there is none; raises InputError."""
    try:
        text = data.get("text") or (data.get("bytes") or b"").decode()
        return json.loads(text) if text.strip() else None
    except (RecursionError, ValueError) as error:
        raise InputError(f"not JSON: {error}", where="the request", now="send JSON") from error


@app.exception_handler(SgnError)
async def refuse(_: Request | None, error: SgnError) -> JSONResponse:
    """Say what is wrong, where, and what to do now."""
    return JSONResponse({"error": error.what, "where": error.where, "now": error.now}, 400)


@serve.deployment(
    max_ongoing_requests=64,
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 16},
)
@serve.ingress(app)
class Recognizer:
    """One worker, with a copy of the model."""

    def __init__(self, model: TrainedModel, device: str, page: str) -> None:
        self.model, self.skeleton, self.html = model, model.card.skeleton, page
        self.model.model.to(device)

    @app.get("/")
    def page(self) -> HTMLResponse:
        """Show a stream in the player, with its labels."""
        return HTMLResponse(self.html)

    @app.post("/predict")
    async def predict(self, request: Request) -> list[dict]:
        """Recognize one clip."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > 64 * 2**20:
                raise InputError("the body is too large", where="the request", now="send less")
        guesses = await self.recognize(await to_thread(read_clip, bytes(body), self.skeleton))
        if isinstance(guesses, SgnError):
            raise guesses
        return list(map(vars, guesses))

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def recognize(self, clips: list) -> list:
        """Recognize the clips of several requests together."""
        return await to_thread(recognize_each, self.model, clips)

    @app.websocket("/stream")
    async def stream(self, socket: WebSocket) -> None:
        """Recognize the frames that a client sends."""
        stream = Stream(self.model)
        await socket.accept()
        try:
            while (data := await wait_for(socket.receive(), IDLE_S))["type"] == "websocket.receive":
                if (found := await to_thread(stream.add, parse(data))) is not None:
                    guesses = list(map(vars, found))
                    await socket.send_json({"frame": stream.num_frames, "guesses": guesses})
        except (SgnError, TimeoutError) as error:
            code, said = (1001, IDLE) if isinstance(error, TimeoutError) else (1007, error)
            await socket.send_text((await refuse(None, said)).body.decode())
            await socket.close(code)


checkpoint, port, num_gpus = [*sys.argv[1:], "0"][:3]  # GPUs of each worker, such as 0.25
model = load_trained_model(checkpoint)
page = render_player(scene_of_stream(model.card.skeleton), Path(__file__).with_name("serve.html"))
recognizer = Recognizer.options(ray_actor_options={"num_gpus": float(num_gpus)})
serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
with suppress(KeyboardInterrupt):
    serve.run(recognizer.bind(model, "cuda" if float(num_gpus) else "cpu", page), blocking=True)
