<%-- Answers every request with an account of it, and writes the same line to the file ORACLE_LOG. --%>
<%@ page session="false" contentType="text/plain" trimDirectiveWhitespaces="true"
         import="java.nio.charset.StandardCharsets, java.nio.file.*, java.util.HexFormat" %>
<%
    String id = request.getHeader("X-Oracle");
    // As far as it is a name.
    id = id == null ? "" : id.replaceAll("(?s)[^0-9A-Za-z].*", "");
    String query = request.getQueryString();
    String target = request.getRequestURI() + (query == null ? "" : "?" + query);
    String body = HexFormat.of().formatHex(request.getInputStream().readAllBytes());
    String line = id + " " + request.getMethod() + " " + target + " " + body;
    byte[] bytes = (line + "\n").getBytes(StandardCharsets.ISO_8859_1);
    synchronized (StandardCharsets.class) {
        Files.write(Path.of(System.getenv("ORACLE_LOG")), bytes, StandardOpenOption.APPEND);
    }
    out.print(line);
%>
