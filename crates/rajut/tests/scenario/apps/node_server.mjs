// A server as Node's own documentation has it: default timeouts (an idle connection is closed after 5 s), and SIGTERM
// stops it with server.close(). It writes down each delivery before it answers.
//
//     DELIVERIES=FILE node node_server.mjs PORT
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";

const server = createServer((request, response) => {
  const [, kind, id] = request.url.split("/");
  if (kind === "id") {
    appendFileSync(process.env.DELIVERIES, `${request.method} ${id}\n`);
  }
  request.resume();
  request.on("end", () => response.end(`${request.method} ${id}`));
});

server.listen(Number(process.argv[2]));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
